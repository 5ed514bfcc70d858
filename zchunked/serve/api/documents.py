"""Manifests for clients: a tag from the upstream, or its last answer; a digest from the store."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from zchunked.errors import NotFoundError, TransferError, ZPullError
from zchunked.interfaces import Naming
from zchunked.oci.digest import Digest, digest_of, parse_digest
from zchunked.oci.documents import OCI_INDEX, OCI_MANIFEST
from zchunked.serve.api.names import Asked
from zchunked.store import Store

if TYPE_CHECKING:  # what is given to one engine has no upstreams, whose counters take 20 ms to load
    from zchunked.serve.upstreams.upstream import Upstream

_MOST_TAGS = 10_000  # of which the last answer is remembered
_PATIENCE = 5.0  # seconds with an upstream that is down, where its last answer would do


class _Kind(msgspec.Struct, rename="camel"):
    media_type: str = ""
    manifests: msgspec.Raw | None = None


_KIND = msgspec.json.Decoder(_Kind)


@dataclass(frozen=True, slots=True)
class ServedManifest:
    """`age`: seconds since the upstream said so; None: just now, or the digest decides."""

    data: bytes
    media_type: str
    digest: Digest
    age: float | None = None


class Documents:
    """Thread-safe.

    `stale`: seconds for which a tag's last answer may replace an upstream that is down.
    """

    def __init__(
        self, store: Store, upstream: Upstream, *, stale: float, offline: bool = False
    ) -> None:
        self._store, self._upstream = store, upstream
        self._stale, self._offline = stale, offline
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Digest, float]] = {}

    def manifest(self, asked: Asked) -> ServedManifest:
        """Raises NotFoundError, AccessDeniedError, TransferError."""
        if ":" in asked.what:
            digest = parse_digest(asked.what, "the manifest's digest")
            data = self._store.document(digest)
            if data is None and self._offline:
                raise NotFoundError(
                    f"{asked.name}@{digest} is not in the store, and this server is offline"
                )
            if data is None:
                data = self._upstream.manifest(asked.reference())
            return _served(data)
        name = f"{asked.name}:{asked.what}"
        if self._offline:
            return self._last(name, None, forever=True)
        try:
            data = self._current(asked)
            if data is None:
                patience = _PATIENCE if self._is_young(self._known_of(name)) else None
                data = self._upstream.manifest(asked.reference(), patience)
            found = _served(data)
        except TransferError as error:
            return self._last(name, error)
        with self._lock:
            self._known[name] = found.digest, time.time()
            while len(self._known) > _MOST_TAGS:
                self._known.pop(next(iter(self._known)))
        return found

    def _current(self, asked: Asked) -> bytes | None:
        """What the tag names now, where the upstream says so without sending it and it is here."""
        try:
            with self._upstream.source(asked.reference()) as origin:
                digest = origin.source.named() if isinstance(origin.source, Naming) else None
        except TransferError:
            return None  # asking for all of it is retried, this is not
        return self._store.document(digest) if digest is not None else None

    def _last(
        self, name: str, failure: ZPullError | None, *, forever: bool = False
    ) -> ServedManifest:
        """The last answer, if young enough and stored. Raises `failure`, or NotFoundError."""
        known = self._known_of(name)
        data = self._store.document(known[0]) if known else None
        if known is None or data is None or not (forever or self._is_young(known)):
            raise failure or NotFoundError(
                f"{name} is not in the store, and this server is offline"
            )
        found = _served(data)
        return ServedManifest(
            found.data, found.media_type, found.digest, max(time.time() - known[1], 0.0)
        )

    def _known_of(self, name: str) -> tuple[Digest, float] | None:
        """What the tag named last, and when."""
        with self._lock:
            known = self._known.get(name)
        if known is not None:
            return known
        pulled = (one for one in self._store.images() if one.name == name)
        return next(((image.root, image.pulled) for image in pulled), None)

    def _is_young(self, known: tuple[Digest, float] | None) -> bool:
        return known is not None and time.time() - known[1] <= self._stale


def _served(data: bytes) -> ServedManifest:
    return ServedManifest(data, media_type_of(data), digest_of(data))


def media_type_of(data: bytes) -> str:
    """The media type that the document states, or that its content implies (image-spec)."""
    try:
        said = _KIND.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "application/octet-stream"
    return said.media_type or (OCI_INDEX if said.manifests is not None else OCI_MANIFEST)
