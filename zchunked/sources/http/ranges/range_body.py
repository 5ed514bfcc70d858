"""Read the body of a range response: one range, multipart/byteranges, or a small packed blob."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from zchunked.errors import FormatError, TransientError
from zchunked.interfaces import Pieces
from zchunked.limits import Limits
from zchunked.oci.digest import short
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.sources.http.content_coding import blob_of
from zchunked.sources.http.errors.status_errors import is_page, page_error
from zchunked.sources.http.ranges.multipart import PartReader
from zchunked.sources.http.ranges.range_response import Packed, Parts
from zchunked.sources.http.response import HttpResponse

Holds = ByteRange | Parts | Packed
"""What a body holds, as `understand` has it of the response's head."""


class RangeBody:
    """One response, read once. For one thread."""

    def __init__(
        self, response: HttpResponse, holds: Holds, blob: Descriptor, what: str, limits: Limits
    ) -> None:
        """`what`: the blob and its host, for messages. `pieces` closes the response."""
        self._response, self._holds, self._blob = response, holds, blob
        self._what, self._limits = what, limits

    def pieces(self, spans: Sequence[ByteRange], learn: Callable[[bool], None]) -> Iterator[Pieces]:
        """Bytes as they arrive, each with its position in the blob; perhaps more than the spans.

        `learn` is given, of a multipart body alone, whether it was sound. Raises TransientError
        where the body breaks off or contradicts itself, PermanentError for a web page.
        """
        with self._response:
            if isinstance(self._holds, ByteRange):
                yield from self._range(self._holds)
            elif isinstance(self._holds, Packed):
                yield from self._packed()
            else:
                yield from self._parts(self._holds, spans, learn)

    def _range(self, span: ByteRange) -> Iterator[Pieces]:
        at = span.start
        for piece in self._response.pieces(span.size):
            if at == 0 and is_page(self._response.headers, piece):
                raise page_error(self._what, piece)
            yield [(at, piece)]
            at += len(piece)

    def _packed(self) -> Iterator[Pieces]:
        """A small blob that may have been packed on the way."""
        response, blob, what = self._response, self._blob, f"blob {short(self._blob.digest)}"
        data = response.read(self._limits.manifest_bytes, what)
        found = blob_of(response.headers, data, blob.digest, blob.size, what)[: blob.size]
        response.traffic.unpacked(max(0, len(found) - len(data)))
        if found:
            yield [(0, found)]

    def _parts(
        self, holds: Parts, spans: Sequence[ByteRange], learn: Callable[[bool], None]
    ) -> Iterator[Pieces]:
        hull = ByteRange(spans[0].start, spans[-1].end)
        parts = PartReader(holds.boundary, self._blob.size, hull, len(spans), self._limits)
        try:
            for piece in self._response.pieces(parts.most_bytes):
                framing, before = len(piece), parts.begun
                for pieces in parts.feed(piece):
                    framing -= sum([len(content) for _, content in pieces])
                    yield pieces
                self._response.traffic.framed(framing, parts.begun - before)
            parts.end()
        except FormatError as error:
            if not parts.is_cut_short:
                learn(False)
            raise TransientError(f"blob {short(self._blob.digest)}: {error}") from error
        learn(True)
