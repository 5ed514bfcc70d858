"""The source of --offline: sends no request; what the store lacks is not found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zchunked.errors import NotFoundError, UnsupportedLayerError
from zchunked.interfaces import Document, Pieces
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.oci.reference import ImageReference, LayoutReference
from zchunked.ranges import ByteRange


def is_on_this_machine(reference: ImageReference) -> bool:
    """Whether reading the image itself needs no network."""
    return isinstance(reference, LayoutReference) and reference.is_local


class OfflineSource:
    """Refuses. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name

    def close(self) -> None: ...

    def manifest(self, digest: Digest | None) -> Document:
        raise NotFoundError(
            f"{self._name}: {'manifest ' + digest if digest else 'what it names'} is not in the "
            "store, and --offline sends no request; pull the image once with the network"
        )

    def spans_per_request(self, blob: Descriptor) -> int:
        return 1

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """Raise UnsupportedLayerError for a missing part: the plan then lists the layer."""
        if list(spans) != [ByteRange(0, blob.size)]:
            raise UnsupportedLayerError("its table of contents is not in the store")
        raise NotFoundError(
            f"{self._name}: blob {blob.digest} is not in the store, and --offline sends no request"
        )
