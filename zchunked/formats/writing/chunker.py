"""Cut a file's content into chunks as containers/storage does: rolling checksum and holes.

The only file that imports numpy.

The rolling checksum of the last 64 bytes is a constant plus each byte times its age, 1 for the
newest and 64 for the oldest; a chunk ends after a byte where its low 16 bits are all ones. So it
needs no state but the last 63 bytes, and all sums of a block are made at once by doubling the
window six times: with numpy (extra `zpull[convert]`) at 500 MB/s, without it in the lanes of one
large integer, some ten times slower. The cuts are the same.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple

WINDOW = 64
HOLE_BYTES = 1024  # the shortest run of zeros that is a chunk of its own
_HISTORY = WINDOW - 1
_BLOCK = 64 << 10  # sums of a block stay in the processor's cache: 635 MB/s, and 540 at 1 MiB
# What the aged bytes add up to at a cut: the checksum starts at 64 · 63 · 31.
_CUT = (0xFFFF - WINDOW * (WINDOW - 1) * 31) & 0xFFFF
_SAMPLE = 512  # the shortest hole has all of a block of that size that begins at a multiple of it
_ZERO_BLOCK, _ZERO_HISTORY = bytes(_SAMPLE), bytes(_HISTORY)
_ZEROS = re.compile(rb"\0*")

Search = Callable[[bytes], list[int]]
"""Offsets of the bytes that end a chunk; counted from the 64th byte of the data."""


class Piece(NamedTuple):
    """A part of a chunk: `data`, or a hole of `zeros` bytes.

    `is_end`: the chunk ends behind it (it may be empty).
    """

    data: bytes
    zeros: int
    is_end: bool


class Chunker:
    """Push cutter of one file's content: the same chunks, in whatever pieces it arrives."""

    def __init__(self) -> None:
        self._search = fastest_search()
        self._history = _ZERO_HISTORY
        self._zeros = 0  # held back: the run of zeros at the end of what arrived, a hole or not

    def feed(self, piece: bytes) -> Iterator[Piece]:
        if self._zeros >= HOLE_BYTES:
            data = piece.lstrip(b"\0")
            self._zeros += len(piece) - len(data)
            if not data:
                return
            yield from self._hole(self._zeros)
        else:
            data = bytes(self._zeros) + piece if self._zeros else piece
        self._zeros = _zeros_at_end(data)
        end, at = len(data) - self._zeros, 0
        for hole, hole_end in holes(data, end):
            yield from self._data(data[at:hole])
            yield from self._hole(hole_end - hole)
            at = hole_end
        yield from self._data(data[at:end])

    def finish(self) -> Iterator[Piece]:
        """What was held back; the last part is an end."""
        if self._zeros >= HOLE_BYTES:
            yield from self._hole(self._zeros)
        else:
            yield from self._data(bytes(self._zeros))
            yield Piece(b"", 0, True)
        self._zeros = 0

    def _hole(self, size: int) -> Iterator[Piece]:
        """End the chunk before a hole; nothing inside a hole ends one."""
        self._history = _ZERO_HISTORY
        yield Piece(b"", 0, True)
        yield Piece(b"", size, True)

    def _data(self, data: bytes) -> Iterator[Piece]:
        if not data:
            return
        known = self._history + data
        self._history = known[-_HISTORY:]
        start = 0
        for at in self._search(known):
            yield Piece(data[start : at + 1], 0, True)
            start = at + 1
        if start < len(data):
            yield Piece(data[start:], 0, False)


def holes(data: bytes, end: int) -> Iterator[tuple[int, int]]:
    """Runs of zeros before `end` that are holes. Reads one byte in 512, and runs from there."""
    sample = data[:end:_SAMPLE]
    number = done = 0
    while (number := sample.find(0, number)) >= 0:
        at = number * _SAMPLE
        number += 1
        if at < done or not data.startswith(_ZERO_BLOCK, at, end):
            continue
        before = data[max(done, at - _SAMPLE) : at]
        start = at - len(before) + len(before.rstrip(b"\0"))
        zeros = _ZEROS.match(data, at, end)
        assert zeros is not None
        done = zeros.end()
        number = max(number, done // _SAMPLE)
        if done - start >= HOLE_BYTES:
            yield start, done


def cut_many(contents: Sequence[bytes]) -> dict[int, list[tuple[int, bool]]]:
    """Ends of the chunks of many whole contents, and whether each is a hole; only of those cut.

    One search for all of them: most files are small, and a search of each alone costs more than
    reading it.
    """
    joined = _ZERO_HISTORY + _ZERO_HISTORY.join(contents)
    # behind the first 63 bytes
    starts = [0, *accumulate(len(content) + _HISTORY for content in contents)]
    cuts: dict[int, list[int]] = {}
    for at in fastest_search()(joined):
        number = bisect_right(starts, at) - 1
        end = at - starts[number] + 1
        if number < len(contents) and end <= len(contents[number]):
            cuts.setdefault(number, []).append(end)
    suspects: set[int] = set()
    # one may reach over several contents, and what is between them
    for start, end in holes(joined, len(joined)):
        first = bisect_right(starts, start - _HISTORY) - 1
        last = bisect_right(starts, end - _HISTORY) - 1
        suspects.update(range(max(first, 0), min(last + 1, len(contents))))
    found = {}
    for number in cuts.keys() | suspects:
        ends = _ends(contents[number], cuts.get(number, []))
        if len(ends) > 1:
            found[number] = ends
    return found


def _ends(content: bytes, cuts: list[int]) -> list[tuple[int, bool]]:
    """The chunks of one content whose bytes before `cuts` end one, unless they are in a hole."""
    found: list[tuple[int, bool]] = []
    at = 0
    for start, end in [*holes(content, len(content)), (len(content), len(content))]:
        found += [(cut, False) for cut in cuts if at < cut < start]
        if start > at:
            found.append((start, False))
        if end > start:
            found.append((end, True))
        at = end
    return found


def _zeros_at_end(data: bytes) -> int:
    if data[-1:] != b"\0":
        return 0
    last = data[-HOLE_BYTES:]
    if rest := last.rstrip(b"\0"):
        return len(last) - len(rest)
    return len(data) - len(data.rstrip(b"\0"))


def search_with_integers(known: bytes) -> list[int]:
    """`Search` without numpy: each byte is 32 bits of one integer, which the sums never fill."""
    found: list[int] = []
    wanted = _CUT.to_bytes(2, "little")
    for block in range(0, len(known) - _HISTORY, _BLOCK):
        part = known[block : block + _BLOCK + _HISTORY]
        lanes = bytearray(4 * len(part))
        lanes[::4] = part
        plain = aged = int.from_bytes(lanes, "little")
        width = 1
        while width < WINDOW:
            older = plain << 32 * width
            aged += (aged << 32 * width) + width * older
            plain += older
            width *= 2
        sums = aged.to_bytes(4 * (len(part) + WINDOW), "little")
        at = sums.find(wanted, 4 * _HISTORY, 4 * len(part))
        while at >= 0:
            if at % 4 == 0:
                found.append(block + at // 4 - _HISTORY)
            at = sums.find(wanted, at + 1, 4 * len(part))
    return found


@cache
def fastest_search() -> Search:
    """The search with numpy, where it is installed. Imported lazily: only conversions need it."""
    try:
        import numpy as np  # noqa: PLC0415
    except ImportError:
        return search_with_integers

    def search(known: bytes) -> list[int]:
        found: list[int] = []
        everything = np.frombuffer(known, np.uint8)
        for block in range(0, len(known) - _HISTORY, _BLOCK):
            plain = aged = everything[block : block + _BLOCK + _HISTORY].astype(np.uint16)
            width = 1
            while width < WINDOW:
                older = plain[:-width]
                twice = older * np.uint16(width)
                twice += aged[width:]
                twice += aged[:-width]
                plain, aged = plain[width:] + older, twice
                width *= 2
            found += (np.flatnonzero(aged == _CUT) + block).tolist()
        return found

    return search
