"""A source that serves images from memory and counts requests: the seam's simplest form."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from tests.helpers.build.front import Image, Index, Layout, layout
from zchunked.errors import NotFoundError, RangeIgnoredError, TransientError
from zchunked.interfaces import Document, Pieces
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, total
from zchunked.sources.traffic import Traffic

Break = Callable[[Descriptor, int, bytes], bytes]
"""(blob, position, piece) → the piece as it shall arrive; may raise."""


class MemorySource:
    """`piece`: size of what `read` yields. `ranges` False: only whole blobs are served."""

    def __init__(
        self,
        content: Layout | Image | Index,
        tag: str = "t",
        *,
        piece: int = 1000,
        ranges: bool = True,
        spans: int = 1,
        change: Break | None = None,
    ) -> None:
        self.content = content if isinstance(content, Layout) else layout({tag: content})
        self.tag, self.piece, self.ranges = tag, piece, ranges
        self.spans, self.change = spans, change
        self.traffic = Traffic(time.monotonic)
        self.asked: list[tuple[str, tuple[ByteRange, ...]]] = []
        self.manifests_asked = 0
        self._lock = threading.Lock()

    def manifest(self, digest: Digest | None) -> Document:
        self.manifests_asked += 1
        self.traffic.asked()
        found = self.content.manifests.get(digest or self.content.tags.get(self.tag, ""))
        if found is None:
            raise NotFoundError(f"no manifest {digest or self.tag}")
        media_type, data = found
        self.traffic.received(len(data))
        return Document(data, media_type)

    def spans_per_request(self, blob: Descriptor) -> int:
        return self.spans

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        data = self.content.blobs.get(blob.digest)
        if data is None:
            raise NotFoundError(f"no blob {blob.digest}")
        if not self.ranges and list(spans) != [ByteRange(0, blob.size)]:
            raise RangeIgnoredError("no ranges here")
        assert len(spans) <= self.spans
        with self._lock:
            self.asked.append((blob.digest, tuple(spans)))
        self.traffic.asked()
        for span in spans:
            for at in range(span.start, span.end, self.piece):
                piece = data[at : min(at + self.piece, span.end)]
                if not piece:
                    raise TransientError(f"blob {blob.digest} is cut short")
                if self.change:
                    piece = self.change(blob, at, piece)
                self.traffic.received(len(piece))
                yield [(at, piece)]

    def close(self) -> None:
        """Nothing is open."""

    @property
    def blob_bytes(self) -> int:
        return sum(total(spans) for _, spans in self.asked)
