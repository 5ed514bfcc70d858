"""Hints, which no proof rests on: converted layers, resumable uploads, images that were served."""

from __future__ import annotations

import time

from zchunked.oci.digest import Digest
from zchunked.store.index.database import Index

_UPLOAD_SECONDS = 7 * 86400.0  # registries purge unfinished uploads
_SERVED_SECONDS = 7 * 86400.0  # a client that comes back after a week begins anew
_MOST_SERVED = 100  # of one repository


class Hints:
    """Recalls and stores hints, which may be outdated: check them before use. Thread-safe."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def recall_conversion(self, diff_id: Digest, settings: str) -> bytes | None:
        """The layer that this tar with these settings was converted to; its blob may be gone."""
        sql = "SELECT result FROM conversions WHERE diff_id = ? AND settings = ?"
        rows = self._index.hints(sql, (diff_id, settings))
        return rows[0][0] if rows else None

    def remember_conversion(self, diff_id: Digest, settings: str, result: bytes) -> None:
        self._index.set_hint(
            "INSERT OR REPLACE INTO conversions VALUES(?, ?, ?)", (diff_id, settings, result)
        )

    def recall_upload(self, target: str, blob: Digest) -> str | None:
        """Where an upload of the blob goes on that a push to this target began and did not end."""
        sql = "SELECT location FROM uploads WHERE target = ? AND digest = ? AND begun >= ?"
        rows = self._index.hints(sql, (target, blob, time.time() - _UPLOAD_SECONDS))
        return rows[0][0] if rows else None

    def remember_upload(self, target: str, blob: Digest, location: str | None) -> None:
        """None: it has ended."""
        if location is None:
            self._index.set_hint(
                "DELETE FROM uploads WHERE target = ? AND digest = ?", (target, blob)
            )
        else:
            row = (target, blob, location, time.time())
            self._index.set_hint("INSERT OR REPLACE INTO uploads VALUES(?, ?, ?, ?)", row)

    def recall_served(self, repository: str) -> list[tuple[Digest, str]]:
        """Manifests of images that clients requested, with the tag or nothing; the latest first."""
        sql = (
            "SELECT manifest, tag FROM served WHERE repository = ? AND asked >= ? ORDER BY "
            "asked DESC LIMIT ?"
        )
        rows = self._index.hints(sql, (repository, time.time() - _SERVED_SECONDS, _MOST_SERVED))
        return [(Digest(manifest), tag) for manifest, tag in rows]

    def remember_served(self, repository: str, manifest: Digest, tag: str) -> None:
        """`tag`: by which a client came to it, or nothing."""
        now = time.time()
        self._index.set_hint("DELETE FROM served WHERE asked < ?", (now - _SERVED_SECONDS,))
        self._index.set_hint(
            "INSERT OR REPLACE INTO served VALUES(?, ?, ?, ?)", (repository, manifest, tag, now)
        )
