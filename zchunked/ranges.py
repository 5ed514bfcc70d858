"""Byte ranges, half-open everywhere; only the HTTP header is inclusive, and only in this file."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence, Sized
from itertools import repeat
from typing import NamedTuple

from zchunked.errors import FormatError

_CONTENT_RANGE = re.compile(
    r"bytes[ ]+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE
)


class ByteRange(NamedTuple):
    """Bytes [start, end) of a blob; never empty. A tuple, because there may be 100,000 of them."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"[{self.start},{self.end})"


def ranges(starts: Iterable[int], ends: Iterable[int]) -> list[ByteRange]:
    """Very many at once."""
    return list(map(tuple.__new__, repeat(ByteRange), zip(starts, ends, strict=True)))


def range_header(spans: Sequence[ByteRange]) -> str:
    return "bytes=" + ",".join([f"{span.start}-{span.end - 1}" for span in spans])


def parse_content_range(text: str) -> tuple[ByteRange, int | None]:
    """The range in a Content-Range header and the whole size it states (None for `*`).

    Raises FormatError.
    """
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None:
        raise FormatError(f"invalid Content-Range: {text!r:.80}; expected bytes FIRST-LAST/SIZE")
    span = ByteRange(int(found[1]), int(found[2]) + 1)
    total = None if found[3] == "*" else int(found[3])
    if span.size < 1 or (total is not None and span.end > total):
        raise FormatError(f"Content-Range {text!r:.80} contradicts itself")
    return span, total


def merge(spans: Iterable[ByteRange]) -> list[ByteRange]:
    """Merge ranges into ascending, disjoint, non-touching ones."""
    merged: list[ByteRange] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            if span.end > merged[-1].end:
                merged[-1] = ByteRange(merged[-1].start, span.end)
        else:
            merged.append(span)
    return merged


def append(spans: list[ByteRange], span: ByteRange) -> None:
    """Append a span; one that continues the last grows it, so that many small pieces stay one."""
    if spans and spans[-1].end == span.start:
        span = ByteRange(spans.pop().start, span.end)
    spans.append(span)


def append_pieces(spans: list[ByteRange], pieces: Iterable[tuple[int, Sized]]) -> None:
    """Append the span of each (position, bytes)."""
    end = spans[-1].end if spans else -1
    for position, piece in pieces:
        start = spans.pop().start if position == end else position
        end = position + len(piece)
        spans.append(ByteRange(start, end))


def subtract(spans: Sequence[ByteRange], have: Sequence[ByteRange]) -> list[ByteRange]:
    """What of `spans` is not in `have`. Both ascending and disjoint; so is the result."""
    if not (spans and have) or spans[-1].end <= have[0].start:  # as often as not
        return list(spans)
    ends = [span.end for span in have]
    left: list[ByteRange] = []
    for span in spans:
        at = span.start
        first = bisect_right(ends, at)
        if first == len(have) or have[first].start >= span.end:
            left.append(span)
            continue
        for index in range(first, len(have)):
            here = have[index]
            if here.start >= span.end:
                break
            if here.start > at:
                left.append(ByteRange(at, here.start))
            at = max(at, here.end)
        if at < span.end:
            left.append(ByteRange(at, span.end))
    return left


def total(spans: Iterable[ByteRange]) -> int:
    return sum([span.end - span.start for span in spans])


class Spans:
    """Ascending, disjoint spans that are asked about often: a question costs what it touches."""

    def __init__(self, spans: Sequence[ByteRange]) -> None:
        self._starts = [span.start for span in spans]
        self._ends = [span.end for span in spans]

    def __bool__(self) -> bool:
        return bool(self._starts)

    @property
    def lowest(self) -> float:
        """Where the first span starts; beyond everything if there is none."""
        return self._starts[0] if self._starts else float("inf")

    def overlap(self, span: ByteRange) -> int:
        """How many bytes of `span` lie in the spans."""
        size = 0
        for index in range(bisect_right(self._ends, span.start), len(self._starts)):
            start = self._starts[index]
            if start >= span.end:
                break
            size += min(span.end, self._ends[index]) - max(span.start, start)
        return size

    def hold(self, start: int, end: int) -> bool:
        """Whether all of [start, end) lies in one of the spans."""
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and end <= self._ends[index]

    def hold_each(self, starts: Iterable[int], ends: Iterable[int]) -> list[bool]:
        """Whether each of many, in any order, is held whole."""
        lows, highs = [-1, *self._starts], [-1, *self._ends]
        return [
            end <= highs[bisect_right(lows, start) - 1]
            for start, end in zip(starts, ends, strict=True)
        ]
