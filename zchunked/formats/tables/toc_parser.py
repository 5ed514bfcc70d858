"""Parse the text of a TOC, piece by piece, into its columns; check what it says of itself."""

from __future__ import annotations

from msgspec import UNSET

from zchunked.errors import FormatError, LimitError, UnsupportedLayerError
from zchunked.formats.budget import ImageBudget, LayerBudget
from zchunked.formats.frames.fingerprints import Fingerprints
from zchunked.formats.tables.toc import ChunkColumns, Toc, TocBuilder
from zchunked.formats.tables.toc_json import BATCH_BYTES, Batch, EntryReader, decode_entries
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import parse_digest


def parse_toc(data: bytes, toc_start: int, limits: Limits = DEFAULT_LIMITS) -> Toc:
    """What `TocParser` makes of all of the text."""
    parser = TocParser(toc_start, limits)
    for at in range(0, len(data), BATCH_BYTES):
        parser.feed(data[at : at + BATCH_BYTES])
    return parser.finish()


class TocParser:
    """Push parser of the decoded TOC, cut anywhere.

    `toc_start` is the TOC's offset in the blob: no payload reaches beyond the frame header there. A
    `builder` of other rules knows that for itself.

    Both of its methods raise FormatError when the TOC contradicts itself, UnsupportedLayerError
    when it is merely nothing we can use; then it is at its end. Of one that is both, what is found
    first decides.
    """

    def __init__(
        self,
        toc_start: int,
        limits: Limits = DEFAULT_LIMITS,
        *,
        batch_bytes: int = BATCH_BYTES,
        builder: TocBuilder | None = None,
        budget: LayerBudget | None = None,
        is_text_taken: bool = False,
    ) -> None:
        """`budget`: this layer's; `is_text_taken`: of the text, whose size was known."""
        self._limits, self._is_text_taken = limits, is_text_taken
        self._budget = budget or ImageBudget(limits).layer("")
        self._reader = EntryReader(batch_bytes)
        self._builder = builder or TocBuilder(toc_start - 8, limits, self._budget)
        self._fingerprints = Fingerprints()
        self._size = 0
        self._count = 0

    def feed(self, text: bytes) -> None:
        """Parse the next text: a few MiB at most, as entries are decoded in such batches."""
        self._size += len(text)
        if self._size > self._limits.toc_bytes:
            raise LimitError(f"the TOC has more than {self._limits.toc_bytes} bytes, the limit")
        if not self._is_text_taken:
            self._budget.take_text(len(text))
        if batch := self._reader.feed(text):
            self._count_in(len(batch.entries))
            self._take(batch)

    def _take(self, batch: Batch) -> None:
        self._builder.take(batch.entries)
        self._fingerprints.take(batch)

    def chunks_from(self, first: int) -> ChunkColumns:
        """Chunks of the entries that have been read, from that number on."""
        return self._builder.chunks_from(first)

    def fingerprints_from(self, first: int) -> bytes:
        """Of what lies before payloads that have been read, from that number on."""
        return self._fingerprints.found_from(first)

    def finish(self) -> Toc:
        document, raws = self._reader.finish()
        if document.version is UNSET:
            raise FormatError("the TOC states no version")
        if document.version != 1:
            raise UnsupportedLayerError(
                f"table of contents of version {str(document.version)[:20]}, only version 1 is "
                "known"
            )
        self._count_in(len(raws))
        for batch in decode_entries(raws):
            self._take(batch)
        del raws  # as large as all that follows, where nothing was taken before
        split = document.tar_split_digest
        digest = parse_digest(split, "tarSplitDigest") if split else None
        return self._builder.finish(digest, self._fingerprints.finish())

    def _count_in(self, more: int) -> None:
        self._count += more
        self._budget.take_entries(more)
        if self._count > self._limits.entries_count:
            raise UnsupportedLayerError(
                f"its table of contents has {self._count} entries or more, the limit is "
                f"{self._limits.entries_count}"
            )
