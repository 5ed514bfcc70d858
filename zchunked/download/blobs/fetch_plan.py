"""Fetch plan of a blob: which byte ranges to request, what they are for, which chunks to check."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from zchunked.download.coalesce import Run
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, Spans, total
from zchunked.receipt import ByteCounts


@dataclass(slots=True, eq=False)
class ChunkChecks:
    """Chunks of one blob to check once their bytes arrived, in blob order."""

    starts: Sequence[int] = ()
    ends: Sequence[int] = ()
    sizes: Sequence[int] = ()
    digests: Sequence[bytes] = ()

    def overlapping(self, span: ByteRange) -> range:
        return range(bisect_right(self.ends, span.start), bisect_left(self.starts, span.end))


@dataclass(slots=True, eq=False)
class FetchPlan:
    """What to fetch of one blob. `runs` cover `wanted`; what they hold besides is gap.

    `metadata`: the wanted spans that are no content.
    """

    blob: Descriptor
    runs: list[Run]
    wanted: list[ByteRange]
    metadata: list[ByteRange] = field(default_factory=list)
    checks: ChunkChecks = field(default_factory=ChunkChecks)
    _wanted: Spans = field(init=False)
    _metadata: Spans = field(init=False)

    def __post_init__(self) -> None:
        self._wanted, self._metadata = Spans(self.wanted), Spans(self.metadata)

    def want_all(self) -> None:
        """The blob can only be fetched whole: no byte of it is a gap any more."""
        self.want([ByteRange(0, self.blob.size)])

    def want(self, spans: list[ByteRange]) -> None:
        """Replace the wanted spans."""
        self.wanted, self._wanted = spans, Spans(spans)

    def worth(self, spans: Sequence[ByteRange]) -> ByteCounts:
        """What received bytes of these spans count as."""
        wanted = sum(self._wanted.overlap(span) for span in spans)
        metadata = sum(self._metadata.overlap(span) for span in spans)
        return ByteCounts(wanted - metadata, metadata, total(spans) - wanted)
