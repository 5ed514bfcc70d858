"""Which bytes of one blob lie where: a map of disjoint extents, in memory, shared by writers and readers."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from zchunked.ranges import ByteRange


class Piece(NamedTuple):
    """Bytes [at, at + size) of the file `file`, which are bytes of a blob."""

    file: str
    at: int
    size: int


class ExtentMap:
    """Thread-safe. Blob offset → file and offset; whatever is added twice counts once, the first copy wins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._rows: list[tuple[int, int, str, int]] = []  # start, end, file, at: ascending and disjoint

    def add(self, start: int, end: int, file: str, at: int) -> list[ByteRange]:
        """Returns what of [start, end) was not here before."""
        with self._lock:
            index = bisect_right(self._starts, start)
            if (
                index
                and self._rows[index - 1][1] == start
                and (index == len(self._rows) or self._rows[index][0] >= end)
            ):
                before = self._rows[index - 1]
                if before[2] == file and before[3] + (start - before[0]) == at:  # the way of every growing run
                    self._rows[index - 1] = (before[0], end, file, before[3])
                    return [ByteRange(start, end)]
            fresh = self._gaps(start, end)
            for gap in fresh:
                where = bisect_right(self._starts, gap.start)
                self._starts.insert(where, gap.start)
                self._rows.insert(where, (gap.start, gap.end, file, at + gap.start - start))
            return fresh

    def _gaps(self, start: int, end: int) -> list[ByteRange]:
        gaps, at = [], start
        for index in range(max(bisect_right(self._starts, start) - 1, 0), len(self._rows)):
            row = self._rows[index]
            if row[0] >= end:
                break
            if row[0] > at:
                gaps.append(ByteRange(at, row[0]))
            at = max(at, row[1])
        if at < end:
            gaps.append(ByteRange(at, end))
        return gaps

    def covers(self, start: int, end: int) -> bool:
        with self._lock:
            index = bisect_right(self._starts, start) - 1
            if index >= 0 and self._rows[index][1] >= end:
                return True
            return not self._gaps(start, end)

    def missing(self, start: int, end: int) -> list[ByteRange]:
        """What of [start, end) is not here."""
        with self._lock:
            return self._gaps(start, end)

    def pieces(self, start: int, end: int) -> list[Piece] | None:
        """Where [start, end) lies, in order; None unless all of it is here."""
        with self._lock:
            found, at = [], start
            for index in range(max(bisect_right(self._starts, start) - 1, 0), len(self._rows)):
                low, high, file, offset = self._rows[index]
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

    def locate(self, spans: Sequence[tuple[int, int]]) -> list[Piece | None]:
        """For each (start, end), ascending, the piece that holds it; None where it takes several or is not here."""
        with self._lock:
            rows, starts, index = self._rows, self._starts, 0
            found: list[Piece | None] = []
            for start, end in spans:
                if index >= len(rows) or rows[index][1] <= start:
                    index = max(bisect_right(starts, start) - 1, 0)
                low, high, file, at = rows[index] if rows else (0, 0, "", 0)
                found.append(Piece(file, at + start - low, end - start) if low <= start and end <= high else None)
            return found

    def cut(self, start: int, end: int) -> None:
        """Forget the bytes [start, end)."""
        with self._lock:
            kept = []
            for low, high, file, at in self._rows:
                if low < start:
                    kept.append((low, min(high, start), file, at))
                if high > end:
                    kept.append((max(low, end), high, file, at + max(end - low, 0)))
            kept = [row for row in kept if row[0] < row[1]]
            self._rows = kept
            self._starts = [row[0] for row in kept]

    def covered(self) -> list[ByteRange]:
        """What is here: ascending, disjoint, touching extents made one."""
        with self._lock:
            merged: list[ByteRange] = []
            for low, high, _, _ in self._rows:
                if merged and merged[-1].end == low:
                    merged[-1] = ByteRange(merged[-1].start, high)
                else:
                    merged.append(ByteRange(low, high))
            return merged

    def still(self, rows: Iterable[tuple[int, int, str, int]]) -> list[tuple[int, int, str, int]]:
        """What of these extents has not been cut since they were added."""
        with self._lock:
            found = []
            for start, end, file, at in rows:
                for index in range(max(bisect_right(self._starts, start) - 1, 0), len(self._rows)):
                    low, high, its_file, offset = self._rows[index]
                    if low >= end:
                        break
                    if high > start and its_file == file and offset - low == at - start:
                        begin = max(low, start)
                        found.append((begin, min(high, end), file, at + begin - start))
            return found

    def rows(self) -> list[tuple[int, int, str, int]]:
        """(start, end, file, at) of each extent."""
        with self._lock:
            return list(self._rows)
