"""Chunks of stored blobs: where the content of a digest lies, as rows of the index promise."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import NamedTuple

from zchunked.oci.digest import RAW_SIZE, Digest
from zchunked.ranges import ByteRange, Spans
from zchunked.store.blobs import Blobs


class ChunkLocation(NamedTuple):
    """Where a chunk's compressed bytes lie: [start, start + length) of a blob."""

    blob: Digest
    start: int
    length: int

    @property
    def span(self) -> ByteRange:
        return ByteRange(self.start, self.start + self.length)


class Chunks(Blobs):
    """The part of a store that finds chunks. Thread-safe."""

    def find_chunks(self, digests: Iterable[bytes]) -> dict[bytes, ChunkLocation]:
        """Where chunks lie, as far as recorded and stored; of several places the newest.

        A blob that came in parts goes first, since each chunk was hashed: of one that came whole it
        is its TOC's claim.
        """
        found: dict[bytes, ChunkLocation] = {}
        known: dict[int, tuple[Digest, Spans]] = {}
        ranks: dict[int, tuple[bool, int]] = {}
        ordered = sorted(digests)
        for which, numbers, starts, lengths in self._index.find_keys(
            "chunks", "digest", RAW_SIZE, ordered
        ):
            for number in set(numbers) - known.keys():
                blob = self.blob_of(number)
                # extents of one that is whole may be many, and tell nothing more
                size = self.whole_size(blob)
                here = self.covered(blob) if size is None else [ByteRange(0, size)]
                known[number], ranks[number] = (blob, Spans(here)), (size is None, number)
            by_blob: dict[int, list[int]] = {}
            for row, number in enumerate(numbers):
                by_blob.setdefault(number, []).append(row)
            for number in sorted(by_blob, key=ranks.__getitem__):
                (blob, spans), rows = known[number], by_blob[number]
                its = [starts[row] for row in rows]
                held = spans.hold_each(its, [starts[row] + lengths[row] for row in rows])
                found.update([(ordered[which[row]], ChunkLocation(blob, starts[row], lengths[row]))
                              for row in compress(rows, held)])  # fmt: skip
        return found

    def blob_of(self, number: int) -> Digest:
        """The blob that rows of the index name by its number."""
        return Digest(self._index.blob(number))

    def add_chunks(
        self, blob: Digest, size: int, rows: Iterable[tuple[bytes, int, int, int]]
    ) -> None:
        """Record chunks of `blob`: (raw digest, start, length, decoded size); best ascending."""
        self._index.add_chunks(blob, size, rows)

    def chunks_of(self, blob: Digest) -> list[tuple[bytes, int, int, int]]:
        """Chunks recorded in a blob: (raw digest, start, length, decoded size), in blob order."""
        return self._index.chunks_of(blob)

    def drop_chunks(self, blob: Digest, digests: Iterable[bytes]) -> None:
        """Remove chunks; layers that rest on chunks of the blob are proved again when pulled."""
        self._index.drop_chunks(blob, digests)
