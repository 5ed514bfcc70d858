"""Read bytes of blobs from the files that their extents name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zchunked.errors import IntegrityError
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange
from zchunked.store.extents import ExtentMap, Piece, Span
from zchunked.store.files.batched_reads import gather
from zchunked.store.files.byte_files import ByteFiles

# What is read is hashed next, out of the core's own cache: 256 MiB took 0.29 s so, and 0.40 in
# blocks of 1 MiB
_READ_BYTES = 256 << 10
_NEAR_BYTES = 64 << 10  # what lies this near is read together: copying is cheaper than asking


class BlobReads:
    """The part of a store that reads. Thread-safe."""

    _files: ByteFiles

    def _extents(self, blob: Digest) -> ExtentMap:
        raise NotImplementedError

    def read(self, blob: Digest, start: int, end: int) -> bytes:
        """Bytes [start, end), unverified; for spans that fit into memory.

        IntegrityError if some are missing.
        """
        pieces = self._pieces(blob, start, end)
        if len(pieces) == 1:
            return self._files.read(pieces[0])
        return b"".join([self._files.read(piece) for piece in pieces])

    def read_many(self, blob: Digest, spans: Sequence[Span]) -> list[bytes | memoryview]:
        """The bytes of each (start, end, …), ascending, in few reads; all fit into memory."""
        places = self._extents(blob).locate(spans)
        data: list[bytes | memoryview] = []
        first = 0
        while first < len(spans):
            place, span = places[first], spans[first]
            if place is None:
                data.append(self.read(blob, span[0], span[1]))
                first += 1
                continue
            file, low = place
            offsets, far = [0], low + span[1] - span[0]
            for last in range(first + 1, len(spans)):
                place, span = places[last], spans[last]
                if place is None or place[0] != file or not 0 <= place[1] - far <= _NEAR_BYTES:
                    break
                offsets.append(place[1] - low)
                far = place[1] + span[1] - span[0]
            block = memoryview(self._files.read(Piece(file, low, far - low)))
            ours = spans[first : first + len(offsets)]
            data += [
                block[at : at + span[1] - span[0]] for at, span in zip(offsets, ours, strict=True)
            ]
            first += len(offsets)
        return data

    def stream(self, blob: Digest, span: ByteRange) -> Iterator[bytes]:
        """Yield bytes [start, end) in bounded pieces; small extents are read together."""
        if not self._extents(blob).covers(span.start, span.end):
            raise IntegrityError(f"bytes {span} of {blob} are not in the store")
        for at in range(span.start, span.end, _READ_BYTES):
            yield gather(self._pieces(blob, at, min(at + _READ_BYTES, span.end)), self._files.read)

    def gather(self, pieces: Sequence[Piece]) -> bytes:
        """The bytes of pieces of byte files, one after the other; all fit into memory."""
        return gather(pieces, self._files.read)

    def pieces_of(self, blob: Digest, spans: Sequence[Span]) -> list[list[Piece]]:
        """Where each (start, end, …) of the blob lies, in order.

        IntegrityError if any byte is missing.
        """
        places = self._extents(blob).locate(spans)
        return [
            [Piece(*place, span[1] - span[0])]
            if place is not None
            else self._pieces(blob, span[0], span[1])
            for place, span in zip(places, spans, strict=True)
        ]

    def _pieces(self, blob: Digest, start: int, end: int) -> list[Piece]:
        found = self._extents(blob).pieces(start, end)
        if found is None:
            raise IntegrityError(f"bytes [{start},{end}) of {blob} are not in the store")
        return found
