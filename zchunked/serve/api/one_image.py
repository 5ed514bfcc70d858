"""Serve one image under a secret name."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from hmac import compare_digest

from zchunked.errors import NotFoundError
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange
from zchunked.serve.api.documents import ServedManifest
from zchunked.serve.api.names import Asked
from zchunked.serve.api.policy import Allowed
from zchunked.serve.api.streams import Blob, Flight
from zchunked.store import Store
from zchunked.store.images import StoredImage


class OneImage:
    """Serves one image. Its name holds a secret, as other users of the machine share loopback.

    Tags of all names are this image. Who asks before it is known waits for it. Thread-safe.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._image: StoredImage | None = None
        self._flight: Flight | None = None
        self._is_over = threading.Event()
        self.secret = secrets.token_hex(16)
        self.was_asked = False
        """Whether a client that knows the secret sent a request."""

    def give(self, image: StoredImage, flight: Flight | None) -> None:
        """Serve it. `flight` is the pull that brings it; None where all of it is here."""
        self._image, self._flight = image, flight
        self._is_over.set()

    def end(self) -> None:
        """End every wait for the image."""
        self._is_over.set()

    def _asked(self, name: str) -> StoredImage:
        if not any(compare_digest(part.encode(), self.secret.encode()) for part in name.split("/")):
            raise NotFoundError("there is nothing here")
        self.was_asked = True
        self._is_over.wait()
        if self._image is None:
            raise NotFoundError("the image of this transfer was not found")
        return self._image

    def manifest(self, asked: Asked) -> ServedManifest:
        found = self._asked(asked.repository).documents
        if ":" in asked.what and asked.what != found.manifest_digest:
            raise NotFoundError(f"{asked.what} is not the image of this transfer")
        return ServedManifest(found.manifest_data, found.manifest.media_type, found.manifest_digest)

    def learn(self, name: str, what: str, digest: Digest, data: bytes, *, is_wanted: bool) -> None:
        """There is nothing to learn."""

    def blob(self, name: str, digest: Digest, *, is_wanted: bool) -> Blob:
        manifest = self._asked(name).documents.manifest
        sizes = {one.digest: one.size for one in (manifest.config, *manifest.layers)}
        size = sizes.get(digest)
        if size is None:
            raise NotFoundError(f"{digest} is not in the image of this transfer")
        is_here = self._flight is None or self._store.is_whole(digest)
        return Blob(self._store, digest, size, None if is_here else self._flight)

    def part(self, name: str, blob: Blob, spans: Sequence[ByteRange]) -> Blob:
        return blob


class Everything(Allowed):
    """The secret is what admits."""

    def check(self, host: str, repository: str) -> None:
        pass
