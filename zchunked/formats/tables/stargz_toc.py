"""Build the TOC's columns for stargz: a chunk's frame goes on with padding and headers.

What differs from containers/storage: no file says where it ends. A frame (a gzip member, or a zstd
frame) reaches to the next larger offset, the last one to the tail. Small files may share a frame:
then `innerOffset` is how far into the decoded frame a chunk lies.
"""

from __future__ import annotations

from array import array
from dataclasses import replace

from msgspec import UNSET

from zchunked.errors import FormatError, UnsupportedLayerError
from zchunked.formats.budget import LayerBudget
from zchunked.formats.tables.toc import Toc, TocBuilder
from zchunked.formats.tables.toc_json import Entry
from zchunked.limits import Limits
from zchunked.oci.digest import Digest


class StargzTocBuilder(TocBuilder):
    """Fills `Toc.inner_offsets`; `Toc.starts` and `Toc.ends` are those of a chunk's whole frame.

    Raises UnsupportedLayerError for TOCs without digests of chunks (written before 2021), and where
    files are not in the blob's order.
    """

    def __init__(self, payload_end: int, limits: Limits, budget: LayerBudget | None = None) -> None:
        super().__init__(payload_end, limits, budget)
        self._inner_offsets = array("q")

    def take(self, batch: list[Entry]) -> None:
        """Take entries. Files of one chunk, nearly all, go the short way of containers/storage."""
        inner_offsets, end = self._inner_offsets, self._payload_end
        for entry in batch:
            if entry.type == "chunk":
                inner_offsets.append(entry.inner_offset or 0)
            elif entry.size and entry.type == "reg":
                inner_offsets.append(entry.inner_offset or 0)
                entry.end_offset = end  # it has none of its own; all ends are found at the end
                if entry.chunk_digest == entry.digest:
                    entry.chunk_digest = UNSET
                if entry.chunk_size == entry.size:
                    entry.chunk_size = UNSET
        super().take(batch)

    def _spans(self, group: list[Entry], name: str) -> tuple[list[int], list[int]]:
        if not group[0].digest or (
            len(group) > 1 and not all(entry.chunk_digest for entry in group)
        ):
            raise UnsupportedLayerError("its table of contents has chunks without a digest")
        return [entry.offset or 0 for entry in group], [0] * len(group)

    def finish(self, tarsplit_digest: Digest | None, fingerprints: bytes) -> Toc:
        return replace(
            super().finish(tarsplit_digest, fingerprints), inner_offsets=self._inner_offsets
        )

    def _check_overlaps(self, digests: list[bytes]) -> None:
        """Chunks follow each other, and something does before the first one: a header at least."""
        at, done = 0, 1  # the frame at hand, and how far into it chunks were seen
        for start, inner, size in zip(
            self._starts, self._inner_offsets, self._chunk_sizes, strict=True
        ):
            if start < at:
                raise UnsupportedLayerError("its table of contents is not in the order of the blob")
            if start == at and inner < done:
                raise FormatError(f"chunks overlap in the TOC: two at {at}+{inner} of the blob")
            at, done = start, inner + size
        if at and at >= self._payload_end:
            raise FormatError(
                f"chunk at {at} in the TOC, where the tar stream ends at {self._payload_end}"
            )
        end = self._payload_end
        for chunk in range(len(self._starts) - 1, -1, -1):
            self._ends[chunk] = end
            if chunk and self._starts[chunk - 1] < self._starts[chunk]:
                end = self._starts[chunk]
