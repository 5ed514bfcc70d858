"""Coalesce needed spans into range requests: buy gaps to save requests, cut long runs. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, pairwise

from zchunked.ranges import ByteRange, merge, subtract, total

MiB = 1 << 20
# a broken connection costs at most the wait for this much; resume loses nothing
_LONGEST_RUN = 4 * MiB
_SHORTEST_RUN = 256 << 10
_LEAST_GAP, _USUAL_GAP, _MOST_GAP = 8 << 10, 64 << 10, 256 << 10
# The header of one part of multipart/byteranges: 118 in answers of nginx, 158 of docker-registry
PART_BYTES = 138
_FEW_SPANS = 8  # so few may always share a request: a connection for each costs more than it saves
_FEW_SINGLES, _MOST_SINGLES = 32, 4096
_NEAR_SECONDS = 0.03
_TRIFLE = 0.002  # part headers that are no more of the needed bytes are worth no request


Run = tuple[ByteRange, ...]
"""One request: ascending, disjoint spans of a blob. More than one where the host takes several."""


@dataclass(frozen=True, slots=True)
class GapPolicy:
    """When a gap is worth its bytes.

    `most`: no gap longer than this is bought. `share`: nor more than this part of the needed bytes
    in all; `parts`: the same for gaps and part headers together where many spans share a request;
    spans beyond it come one by one, if that takes no more than `singles` requests: else headers
    cost less. `most_in_parts`: the longest gap that costs less than another part where many spans
    share a request.
    """

    most: int = _USUAL_GAP
    share: float = 0.09
    parts: float = 0.048
    singles: int = _FEW_SINGLES
    most_in_parts: int = PART_BYTES


def coalesce(spans: Sequence[ByteRange], policy: GapPolicy) -> list[ByteRange]:
    """Buy gaps, the shortest first, as far as the policy allows.

    `spans` are ascending and disjoint; so is the result.
    """
    gaps = [after.start - before.end for before, after in pairwise(spans)]
    budget = total(spans) * policy.share  # perhaps infinite
    bought = bytearray([gap <= policy.most for gap in gaps])
    if math.isfinite(budget):
        for index in sorted(compress(range(len(gaps)), bought), key=gaps.__getitem__):
            budget -= gaps[index]
            bought[index] = budget >= 0
    left = [gap for gap, is_bought in enumerate(bought) if not is_bought]
    edges = zip([0, *(gap + 1 for gap in left)], [*left, len(gaps)], strict=True)
    return (
        [ByteRange(spans[first].start, spans[last].end) for first, last in edges] if spans else []
    )


@dataclass(frozen=True, slots=True)
class Lengths:
    """Bytes that a request may ask for: `longest`, towards the end ever less, to `shortest`.

    So all workers end together, and a reader of their bytes in order is not left with much to do.
    Where long gaps are bought, requests cost more than that: then none gets short.
    """

    longest: int
    shortest: int
    jobs: int

    @classmethod
    def of(cls, size: int, jobs: int, policy: GapPolicy) -> Lengths:
        """Lengths for so many bytes by so many workers; no request would mostly wait."""
        longest = min(_LONGEST_RUN, max(_SHORTEST_RUN, size // (jobs * 2)))
        return cls(longest, min(longest, max(_SHORTEST_RUN, 4 * policy.most, longest // 8)), jobs)

    def now(self, left: int) -> int:
        """The length of the next request, with so many bytes left."""
        return max(self.shortest, min(self.longest, left // self.jobs))


def cut(
    runs: Sequence[ByteRange], needed: Sequence[ByteRange], lengths: Lengths
) -> list[ByteRange]:
    """Cut runs that are too long, preferably where a needed span starts.

    Otherwise anywhere: two runs may share a span. The runs start and end with needed bytes, and so
    do the pieces.
    """
    pieces: list[ByteRange] = []
    starts = [span.start for span in needed]
    where, left = 0, total(runs)
    for run in runs:
        at, end = run
        left -= end - at
        while at < end:
            longest = lengths.now(left + end - at)
            edge = end
            if edge - at > longest:
                where = bisect_right(starts, at + longest // 2, where)
                edge = (
                    starts[where]
                    if where < len(starts) and starts[where] <= at + longest
                    else at + longest
                )
            piece: ByteRange | None = run
            # it may fall behind a gap: then the gap would be bought for nothing
            if (at, edge) != run:
                piece = _trim(ByteRange(at, edge), needed, starts)
            if piece is not None:
                pieces.append(piece)
            at = edge
    return pieces


def _trim(piece: ByteRange, needed: Sequence[ByteRange], starts: list[int]) -> ByteRange | None:
    first = max(bisect_right(starts, piece.start) - 1, 0)
    if needed[first].end <= piece.start:
        first += 1
    last = bisect_left(starts, piece.end) - 1
    if first > last:
        return None
    return ByteRange(max(piece.start, needed[first].start), min(piece.end, needed[last].end))


def runs_for(
    needed: Sequence[ByteRange], *, policy: GapPolicy, jobs: int, spans: int = 1, metadata: int = 0
) -> list[Run]:
    """The requests for `needed` (ascending, disjoint) of one blob, which cover it without overlap.

    `spans`: how many the host takes in one request. `metadata`: bytes that arrived before
    and are needed all the same.
    """
    if not needed:
        return []
    if spans > 1:
        return _in_parts(needed, policy, jobs, spans, metadata)
    closed = coalesce(needed, policy)
    lengths = Lengths.of(total(closed), jobs, policy)
    return group(cut(closed, needed, lengths), 1, lengths)


def _in_parts(
    needed: Sequence[ByteRange], policy: GapPolicy, jobs: int, spans: int, metadata: int
) -> list[Run]:
    """Many spans in one request, as far as the policy allows; the rest one by one.

    A gap that costs less than another part is always bought.
    """
    cheap = GapPolicy(min(policy.most, policy.most_in_parts), float("inf") if policy.share else 0.0)
    closed = coalesce(needed, cheap)
    lengths = Lengths.of(total(closed), jobs, policy)
    pieces = cut(closed, needed, lengths)
    budget = (total(needed) + metadata) * policy.parts - (total(closed) - total(needed))
    many = (
        len(pieces) if math.isinf(budget) else min(len(pieces), max(0, int(budget // PART_BYTES)))
    )
    rest = len(pieces) - many
    if rest > policy.singles or rest * PART_BYTES < total(needed) * _TRIFLE:
        many = len(pieces)
    at_once = min(spans, max(_FEW_SPANS, many // jobs))
    return [*group(pieces[:many], at_once, lengths), *group(pieces[many:], 1, lengths)]


def group(pieces: Sequence[ByteRange], spans: int, lengths: Lengths) -> list[Run]:
    """Put neighbours into requests of at most `spans` pieces, and not too long.

    A piece may be longer by itself.
    """
    runs: list[Run] = []
    held: list[ByteRange] = []
    size, left = 0, total(pieces)
    longest = lengths.now(left)
    for piece in pieces:
        if held and (len(held) >= spans or size + piece.size > longest):
            runs.append(tuple(held))
            left -= size
            longest = lengths.now(left)
            held, size = [], 0
        held.append(piece)
        size += piece.size
    if held:
        runs.append(tuple(held))
    return runs


def shares(left: Sequence[ByteRange], jobs: int) -> list[Run]:
    """Divide what a broken connection left among up to `jobs` workers; little is not divided."""
    longest = max(_SHORTEST_RUN, -(-total(left) // jobs))
    return group(
        cut(left, left, Lengths(longest, longest, jobs)), len(left), Lengths(longest, longest, jobs)
    )


def hull(run: Run) -> ByteRange:
    """The range from a run's first byte to its last."""
    return ByteRange(run[0].start, run[-1].end)


@dataclass(frozen=True, slots=True)
class Link:
    """The link to the source: seconds for a round trip, bytes per second; None is unknown.

    `part`: seconds that the host needs for each part of an answer of several, beside those that its
    bytes take. docker-registry 2.8 reads 4 MiB of the blob for each, 0.5 ms of a core; nginx takes
    no time that can be measured.
    """

    round_trip: float | None = None
    rate: float | None = None
    part: float = 0.0

    def worth_of_request(self, jobs: int) -> int:
        """The longest gap that costs less than another request.

        That is what the link carries while one connection waits.
        """
        if self.round_trip is None or self.rate is None:
            return _USUAL_GAP
        return min(max(int(self.rate * self.round_trip / jobs), _LEAST_GAP), _MOST_GAP)

    def singles(self, jobs: int) -> int:
        """How many more requests may save bytes: many to a near host, else two seconds' worth."""
        if not self.round_trip:
            return _FEW_SINGLES
        if self.round_trip < _NEAR_SECONDS:
            return _MOST_SINGLES
        return max(int(2 * jobs / self.round_trip), _FEW_SINGLES)

    def seconds(self, size: int, requests: int, jobs: int) -> float:
        """About how long a download takes."""
        waiting = (self.round_trip or 0.0) * -(-requests // jobs)
        return waiting + (size / self.rate if self.rate else 0.0)


def missing(wanted: Sequence[ByteRange], here: Sequence[ByteRange]) -> list[ByteRange]:
    """What of `wanted`, in any order and perhaps touching, is not here."""
    return subtract(merge(wanted), here)
