"""Protocol of named objects, below layouts: a directory, a web server or a bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from zchunked.interfaces import Pieces
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange


class Objects(Protocol):
    """Objects under one base, by relative path (`index.json`, `blobs/sha256/…`).

    Vouches for nothing, tries once, thread-safe. Raises as `Source` does.
    """

    name: str
    """What messages call the place."""

    def get(self, path: str, most: int) -> bytes:
        """A small object, whole. NotFoundError if absent, LimitError above `most` bytes."""

    def spans_per_request(self, path: str, blob: Descriptor) -> int:
        """As `Source.spans_per_request`."""

    def read(self, path: str, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """As `Source.read`."""

    def close(self) -> None: ...
