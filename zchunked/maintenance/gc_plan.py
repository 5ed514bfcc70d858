"""Plan a collection: which names, blobs and parts of files go, given holders and a budget. Pure.

Rows in, values out: nothing is read or removed here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import groupby
from operator import itemgetter

from zchunked.ranges import ByteRange, merge
from zchunked.store.index.collector import FileRow

_NOBODY = 1 << 30
_COMPACT_BELOW = 0.5  # of a file: with less alive, writing that anew frees more than it writes


@dataclass(frozen=True, slots=True)
class Holder:
    """What keeps bytes: an image, a running or interrupted pull, or a blob that a process uses.

    `reaches`: blobs that it keeps all of. `parts`: of other blobs, what its layers were rebuilt
    from; spans ascend. `at`: when it was last of use, in seconds since the epoch. One that
    `is_fixed` is never given up for a budget.
    """

    key: object
    reaches: frozenset[str]
    at: float = math.inf
    is_fixed: bool = False
    parts: Mapping[str, Sequence[ByteRange]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Budget:
    """`bytes`: what the store may weigh on disk. `overhead`: what of that is the index."""

    bytes: int
    overhead: int = 0


@dataclass(frozen=True, slots=True)
class FileState:
    """A byte file: its size and its wanted bytes.

    `is_busy`: its writer or a reader is at work.
    """

    name: str
    size: int
    live: int
    is_busy: bool = False


@dataclass(frozen=True, slots=True)
class GcPlan:
    """`given_up`: holders the budget drops. `trimmed`: dead blobs, and what others need."""

    given_up: list[Holder]
    dead: list[str]
    trimmed: dict[str, list[ByteRange]]
    files: list[FileState]
    compact: list[str]

    @property
    def kept_bytes(self) -> int:
        """What the byte files will weigh."""
        smaller = {*self.compact}
        return sum(
            file.live if file.name in smaller or not file.live else file.size for file in self.files
        )


def plan(
    holders: Sequence[Holder],
    rows: Iterable[FileRow],
    sizes: Mapping[str, int],
    blobs: Collection[str],
    *,
    busy: Collection[str] = (),
    budget: Budget | None = None,
) -> GcPlan:
    """`sizes`: of byte files. `busy`: not to compact now. Latest holders are kept longest."""
    ordered = sorted(holders, key=lambda one: (not one.is_fixed, -one.at))
    wants = _Wants(ordered)
    by_file = _weigh(rows, wants)
    kept = len(ordered)
    if budget is not None:
        kept = _affordable(by_file, ordered, budget.bytes - budget.overhead)
    dead = [blob for blob in blobs if wants.rank(blob) >= kept]
    trimmed = {blob: spans for blob in dead if (spans := wants.spans(blob, kept))}
    files = []
    for name, size in sorted(sizes.items()):
        live = sum(count for rank, count in by_file.get(name, {}).items() if rank < kept)
        files.append(FileState(name, size, min(live, size), name in busy))
    return GcPlan(
        ordered[kept:],
        [blob for blob in dead if blob not in trimmed],
        trimmed,
        files,
        _to_compact(files, budget),
    )


class _Wants:
    """The first of the holders, in their order, that wants each blob, or spans of it."""

    def __init__(self, ordered: Sequence[Holder]) -> None:
        self.ranks: dict[str, int] = {}
        self.parts: dict[str, list[tuple[int, Sequence[ByteRange]]]] = {}
        for rank, holder in enumerate(ordered):
            for blob in holder.reaches:
                self.ranks.setdefault(blob, rank)
            for blob, spans in holder.parts.items():
                self.parts.setdefault(blob, []).append((rank, spans))

    def rank(self, blob: str) -> int:
        return self.ranks.get(blob, _NOBODY)

    def spans(self, blob: str, kept: int) -> list[ByteRange]:
        return merge(
            span for rank, spans in self.parts.get(blob, ()) if rank < kept for span in spans
        )

    def ranges(self, row: FileRow) -> list[tuple[int, int, int]]:
        """(at, end, rank) of the row's parts that a holder wants, ascending."""
        _, at, until, blob, start = row
        rank = self.rank(blob)
        found = [(at, until, rank)] if rank < _NOBODY else []
        shift, end = at - start, start + until - at
        for other, spans in self.parts.get(blob, ()):
            if other < rank:
                for span in spans:
                    low, high = max(span.start, start), min(span.end, end)
                    if low < high:
                        found.append((low + shift, high + shift, other))
        return found


def _weigh(rows: Iterable[FileRow], wants: _Wants) -> dict[str, dict[int, int]]:
    """How many bytes of each file each rank is the first to want; rows ascend."""
    weighed: dict[str, dict[int, int]] = {}
    ranks, parts = wants.ranks, wants.parts
    for name, group in groupby(rows, itemgetter(0)):
        ranges: list[tuple[int, int, int]] = []
        for row in group:  # hundreds of thousands: nothing is called for most of them
            if row[3] in parts:
                ranges += wants.ranges(row)
            elif (rank := ranks.get(row[3], -1)) >= 0:
                ranges.append((row[1], row[2], rank))
        if ranges:
            weighed[name] = _first_wanted(ranges)
    return weighed


def _first_wanted(ranges: list[tuple[int, int, int]]) -> dict[int, int]:
    """Bytes by rank, where the lowest of those that overlap counts."""
    ranges.sort()
    counts: dict[int, int] = {}
    # (rank, end), a heap; what is not on its top is looked at when it comes up
    active: list[tuple[int, int]] = []
    position = 0
    for at, end, rank in (*ranges, (sys.maxsize, sys.maxsize, 0)):
        while active and position < at:
            first, until = active[0]
            if until <= position:
                heappop(active)
                continue
            reached = min(until, at)
            counts[first] = counts.get(first, 0) + reached - position
            position = reached
        position = max(position, at)
        if not active or active[0][0] > rank or active[0][1] < end:
            heappush(active, (rank, end))
    return counts


def _affordable(
    by_file: Mapping[str, Mapping[int, int]], ordered: Sequence[Holder], most: int
) -> int:
    """How many of the holders fit, all files compacted. Those that are fixed do not ask."""
    weights = [0] * len(ordered)
    for counts in by_file.values():
        for rank, count in counts.items():
            weights[rank] += count
    total = 0
    for rank, holder in enumerate(ordered):
        total += weights[rank]
        if total > most and not holder.is_fixed:
            return rank
    return len(ordered)


def _to_compact(files: Sequence[FileState], budget: Budget | None) -> list[str]:
    """Files less than half alive; for a budget more of them, most dead bytes first."""
    idle = [file for file in files if file.live and not file.is_busy]
    chosen = [file.name for file in idle if file.live < _COMPACT_BELOW * file.size]
    if budget is None:
        return chosen
    smaller = {*chosen}
    left = sum(file.live if file.name in smaller or not file.live else file.size for file in files)
    for file in sorted(idle, key=lambda one: one.live - one.size):
        if left <= budget.bytes - budget.overhead or file.live == file.size:
            break
        if file.name not in smaller:
            chosen.append(file.name)
            left -= file.size - file.live
    return chosen
