"""Where a file is cut into chunks. A cut is the offset after which a new chunk begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise

Cut = Callable[[bytes], Iterable[int]]
"""Offsets in ascending order, each in (0, len]; one at the length leaves an empty frame."""

_WINDOW = 64
_BLOCK = 1 << 20
_CUT = ((0xFFFF - _WINDOW * (_WINDOW - 1) * 31) & 0xFFFF).to_bytes(2, "little")
_HOLE = re.compile(rb"\0{1024,}")


def rolling(data: bytes) -> list[int]:
    """The cuts of containers/storage: where the lowest 16 bits of a rolling sum are all ones.

    The sum is a constant plus each byte times its age (1 for the newest, 64 for the oldest). Here
    every byte has a lane of 32 bits in one big integer, and all sums are made at once by doubling
    the window six times.
    """
    found: list[int] = []
    for block in range(0, len(data), _BLOCK):
        behind = min(block, _WINDOW - 1)
        part = data[block - behind : block + _BLOCK]
        lanes = bytearray(4 * len(part))
        lanes[::4] = part
        plain = aged = int.from_bytes(lanes, "little")
        width = 1
        while width < _WINDOW:
            older = plain << 32 * width
            aged += (aged << 32 * width) + width * older
            plain += older
            width *= 2
        sums = aged.to_bytes(4 * (len(part) + _WINDOW), "little")
        at = sums.find(_CUT, 4 * behind, 4 * len(part))
        while at >= 0:
            if at % 4 == 0:
                found.append(block - behind + at // 4 + 1)
            at = sums.find(_CUT, at + 1, 4 * len(part))
    return found


def every(size: int) -> Cut:
    """Chunks of a fixed size."""
    return lambda data: range(size, len(data) + 1, size)


def never(data: bytes) -> list[int]:
    """One chunk per file."""
    return []


def pieces(data: bytes, cut: Cut, *, holes: bool = True) -> list[tuple[int, int, bool]]:
    """The chunks (start, end, zeros) of a file.

    With holes, each run of at least 1024 zeros is a chunk of its own and nothing is cut inside it.
    A last, empty piece stands for the empty frame of a file that ends exactly at a cut or in a
    hole.
    """
    runs = [found.span() for found in _HOLE.finditer(data)] if holes else []
    inside = iter(runs)
    start, end = next(inside, (len(data) + 1, 0))
    bounds = {0, len(data)}
    cuts = list(cut(data))
    for at in cuts:
        while end and at > end:
            start, end = next(inside, (len(data) + 1, 0))
        if at <= start:
            bounds.add(at)
    zeros = {run[0] for run in runs}
    bounds.update(at for run in runs for at in run)
    edges = sorted(bounds)
    found = [(a, b, a in zeros) for a, b in pairwise(edges)]
    ends_cut = cuts[-1:] == [len(data)] or (runs and runs[-1][1] == len(data))
    return [*found, (len(data), len(data), False)] if ends_cut else found
