"""Extent map of a blob: which of its bytes lie in which file; disjoint, in memory, thread-safe."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple, Self

from zchunked.ranges import ByteRange

_BLOCK_ROWS = 512


class Piece(NamedTuple):
    """Bytes [at, at + size) of the file `file`, which are bytes of a blob."""

    file: str
    at: int
    size: int


Row = tuple[int, int, str, int]
"""Start, end, file, at: bytes [start, end) of the blob lie in the file from `at` on."""


Span = tuple[int, int] | tuple[int, int, int] | tuple[int, int, int, bytes]
"""Start and end, and whatever else the caller keeps with them."""


class ExtentMap:
    """Blob offset → file and offset. Of bytes added twice the first copy wins. Thread-safe.

    The rows, ascending and disjoint, are held in blocks: one list of tens of thousands, with many
    workers inserting all over it, would spend its time moving.
    """

    def __init__(self, block_rows: int = _BLOCK_ROWS) -> None:
        self._lock = threading.Lock()
        self._most = 2 * block_rows
        self._blocks: list[list[Row]] = [[]]  # none but the first is ever empty
        # where the rows of each block start; of the first, below everything
        self._firsts: list[int] = [-1]

    @classmethod
    def of(cls, rows: list[Row], block_rows: int = _BLOCK_ROWS) -> Self:
        """Make a map of rows that ascend by their start."""
        extents = cls(block_rows)
        if all(before[1] < after[0] for before, after in pairwise(rows)):
            extents._blocks = [
                rows[at : at + block_rows] for at in range(0, len(rows), block_rows)
            ] or [[]]
            extents._firsts[1:] = [block[0][0] for block in extents._blocks[1:]]
        else:  # rows that overlap, or go on where another one ended
            extents.add_many(rows)
        return extents

    def _find(self, position: int) -> tuple[int, int]:
        """Block and position in it of the last row that starts at or before it; -1: none."""
        number = bisect_right(self._firsts, position) - 1
        return number, bisect_right(self._blocks[number], (position, math.inf)) - 1

    def _following(self, number: int, place: int) -> float:
        """Where the row behind that place starts."""
        block = self._blocks[number]
        if place + 1 < len(block):
            return block[place + 1][0]
        return self._firsts[number + 1] if number + 1 < len(self._firsts) else math.inf

    def _from(self, position: int) -> Iterator[Row]:
        """The rows that end behind `position`, and perhaps one before them."""
        number, place = self._find(position)
        block = self._blocks[number]
        for here in range(max(place, 0), len(block)):
            yield block[here]
        for block in islice(self._blocks, number + 1, None):
            yield from block

    def add(self, start: int, end: int, file: str, at: int) -> list[ByteRange]:
        """Returns what of [start, end) was not here before."""
        return [ByteRange(row[0], row[1]) for row in self.add_many([(start, end, file, at)])]

    def add_many(self, rows: Iterable[Row]) -> list[Row]:
        """One after the other; returns what of them was not here before."""
        with self._lock:
            return [fresh for row in rows for fresh in self._add(row)]

    def _add(self, row: Row) -> list[Row]:
        start, end, file, at = row
        number, place = self._find(start)
        block = self._blocks[number]
        before = block[place] if place >= 0 else (-1, -1, "", 0)
        # nothing of it is here, the way of nearly all
        if before[1] <= start and end <= self._following(number, place):
            if before[1] == start and before[2] == file and before[3] + start - before[0] == at:
                block[place] = (before[0], end, file, before[3])
            else:
                self._insert(number, place + 1, row)
            return [row]
        fresh = [
            (gap.start, gap.end, file, at + gap.start - start) for gap in self._gaps(start, end)
        ]
        for one in fresh:
            number, place = self._find(one[0])
            self._insert(number, place + 1, one)
        return fresh

    def _insert(self, number: int, place: int, row: Row) -> None:
        block = self._blocks[number]
        block.insert(place, row)
        if len(block) > self._most:
            half = len(block) // 2
            self._blocks.insert(number + 1, block[half:])
            self._firsts.insert(number + 1, block[half][0])
            del block[half:]

    def _gaps(self, start: int, end: int) -> list[ByteRange]:
        number, place = self._find(start)
        is_free = place < 0 or self._blocks[number][place][1] <= start
        if is_free and start < end <= self._following(number, place):
            return [ByteRange(start, end)]
        gaps, at = [], start
        for low, high, _, _ in self._from(start):
            if low >= end:
                break
            if low > at:
                gaps.append(ByteRange(at, low))
            at = max(at, high)
        if at < end:
            gaps.append(ByteRange(at, end))
        return gaps

    def covers(self, start: int, end: int) -> bool:
        with self._lock:
            return self._covers(start, end)

    def covers_each(self, spans: Iterable[tuple[int, int]]) -> list[bool]:
        """Whether all of each span is stored; many at once, in any order."""
        with self._lock:
            return [self._covers(start, end) for start, end in spans]

    def _covers(self, start: int, end: int) -> bool:
        number, place = self._find(start)
        high = self._blocks[number][place][1] if place >= 0 else -1
        return start >= end or high >= end or (high > start and not self._gaps(high, end))

    def missing(self, start: int, end: int) -> list[ByteRange]:
        """What of [start, end) is not here."""
        with self._lock:
            return self._gaps(start, end)

    def pieces(self, start: int, end: int) -> list[Piece] | None:
        """Where [start, end) lies, in order; None unless all of it is here."""
        with self._lock:
            found, at = [], start
            for low, high, file, offset in self._from(start):
                if high <= at:
                    continue
                if low > at:
                    return None
                step = min(high, end) - at
                found.append(Piece(file, offset + at - low, step))
                at += step
                if at == end:
                    return found
            return found if at == end else None

    def locate(self, spans: Sequence[Span]) -> list[tuple[str, int] | None]:
        """File and offset of each (start, end, …), ascending; None where split or not stored."""
        with self._lock:
            found: list[tuple[str, int] | None] = []
            low, high, file, at = 0, 0, "", 0
            for span in spans:
                start, end = span[0], span[1]
                if start >= high or start < low:
                    number, place = self._find(start)
                    low, high, file, at = (
                        self._blocks[number][place] if place >= 0 else (0, 0, "", 0)
                    )
                found.append((file, at + start - low) if low <= start and end <= high else None)
            return found

    def cut(self, start: int, end: int) -> None:
        """Forget the bytes [start, end)."""
        with self._lock:
            number = self._find(start)[0]
            while number < len(self._blocks) and self._firsts[number] < end:
                kept: list[Row] = []
                for low, high, file, at in self._blocks[number]:
                    if low < start:
                        kept.append((low, min(high, start), file, at))
                    if high > end:
                        kept.append((max(low, end), high, file, at + max(end - low, 0)))
                if kept or not number:
                    self._blocks[number] = kept
                    if number:
                        self._firsts[number] = kept[0][0]
                    number += 1
                else:
                    del self._blocks[number], self._firsts[number]

    def covered(self) -> list[ByteRange]:
        """What is here: ascending, disjoint, touching extents made one."""
        with self._lock:
            merged: list[ByteRange] = []
            begin = end = -1
            for block in self._blocks:
                for low, high, _, _ in block:
                    if low != end:
                        if begin >= 0:
                            merged.append(ByteRange(begin, end))
                        begin = low
                    end = high
            if begin >= 0:
                merged.append(ByteRange(begin, end))
            return merged

    def still(self, rows: Iterable[Row]) -> list[Row]:
        """What of these extents has not been cut since they were added."""
        with self._lock:
            found = []
            for row in rows:
                start, end, file, at = row
                number, place = self._find(start)
                low, high, its_file, offset = (
                    self._blocks[number][place] if place >= 0 else (0, 0, "", 0)
                )
                if end <= high and its_file == file and offset - low == at - start:
                    found.append(row)
                    continue
                for low, high, its_file, offset in self._from(start):
                    if low >= end:
                        break
                    if high > start and its_file == file and offset - low == at - start:
                        begin = max(low, start)
                        found.append((begin, min(high, end), file, at + begin - start))
            return found

    def rows(self) -> list[Row]:
        with self._lock:
            return [row for block in self._blocks for row in block]
