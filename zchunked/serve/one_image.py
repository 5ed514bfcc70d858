"""Serve one image under a secret name."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hmac import compare_digest

from zchunked.errors import NotFoundError
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange
from zchunked.serve.documents import ServedManifest
from zchunked.serve.names import Asked
from zchunked.serve.policy import Allowed
from zchunked.serve.streams import Blob, Flight
from zchunked.store import Store
from zchunked.store.images import StoredImage


class OneImage:
    """Serves one image. Its name holds a secret, as other users of the machine share loopback.

    Tags of all names are this image. `flight` is the pull that fetches it; None where all of it is
    here. Thread-safe.
    """

    def __init__(self, store: Store, image: StoredImage, flight: Flight | None) -> None:
        self._store, self._documents, self._flight = store, image.documents, flight
        manifest = image.documents.manifest
        self._sizes = {blob.digest: blob.size for blob in (manifest.config, *manifest.layers)}
        self.secret = secrets.token_hex(16)
        self.was_asked = False
        """Whether a client that knows the secret sent a request."""

    def _admit(self, name: str) -> None:
        if not any(compare_digest(part.encode(), self.secret.encode()) for part in name.split("/")):
            raise NotFoundError("there is nothing here")
        self.was_asked = True

    def manifest(self, asked: Asked) -> ServedManifest:
        self._admit(asked.repository)
        found = self._documents
        if ":" in asked.what and asked.what != found.manifest_digest:
            raise NotFoundError(f"{asked.what} is not the image of this transfer")
        return ServedManifest(found.manifest_data, found.manifest.media_type, found.manifest_digest)

    def learn(self, name: str, what: str, digest: Digest, data: bytes, *, is_wanted: bool) -> None:
        """There is nothing to learn."""

    def blob(self, name: str, digest: Digest, *, is_wanted: bool) -> Blob:
        self._admit(name)
        size = self._sizes.get(digest)
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
