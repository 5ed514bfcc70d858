"""Cuts are those of containers/storage.

By numpy, by integers, and however the content comes in pieces.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.build import cut
from zchunked.formats.writing import chunker
from zchunked.formats.writing.chunker import (
    Chunker,
    Search,
    cut_many,
    fastest_search,
    holes,
    search_with_integers,
)

SEARCHES = {"numpy": fastest_search(), "integers": search_with_integers}


def rolled(data: bytes) -> list[int]:
    """The checksum byte by byte, as the writers keep it.

    The offsets of the bytes that a chunk ends with.
    """
    ring, at, s1, s2 = [0] * 64, 0, 64 * 31, 64 * 63 * 31
    found = []
    for offset, byte in enumerate(data):
        oldest, ring[at] = ring[at], byte
        at = (at + 1) % 64
        s1 = (s1 + byte - oldest) & 0xFFFFFFFF
        s2 = (s2 + s1 - 64 * (oldest + 31)) & 0xFFFFFFFF
        if s2 & 0xFFFF == 0xFFFF:
            found.append(offset)
    return found


def content(seed: int, size: int) -> bytes:
    """Random bytes, text, and runs of zeros of every interesting length between them."""
    rng = random.Random(seed)
    parts: list[bytes] = []
    while sum(map(len, parts)) < size:
        parts += [
            rng.randbytes(rng.choice([1, 63, 64, 500, 70_000])),
            b"a line of text that repeats itself\n" * rng.randrange(100),
            bytes(rng.choice([0, 1, 62, 63, 64, 1022, 1023, 1024, 1025, 5000])),
        ]
    return b"".join(parts)[:size]


def chunks(pieces: Sequence[bytes]) -> Iterator[tuple[int, int, bool]]:
    """As `cut.pieces` tells them."""
    cutter = Chunker()
    parts = [part for piece in pieces for part in cutter.feed(piece)]
    parts += cutter.finish()
    assert parts[-1].is_end
    start = at = 0
    for part in parts:
        at += len(part.data) + part.zeros
        if part.is_end and at > start:
            yield start, at, part.zeros > 0
            start = at


@pytest.mark.parametrize("name", SEARCHES)
def test_both_searches_find_what_the_byte_loop_finds(name: str) -> None:
    search: Search = SEARCHES[name]
    data = content(1, 400_000)
    wanted = rolled(data)
    assert len(wanted) > 3
    assert search(bytes(63) + data) == wanted
    assert search(bytes(63)) == []


def test_numpy_is_used_where_it_is_installed() -> None:
    pytest.importorskip("numpy")
    assert fastest_search() is not search_with_integers


def test_without_numpy_the_integers_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    assert chunker.fastest_search.__wrapped__() is search_with_integers


@given(st.integers(0, 1 << 30), st.lists(st.integers(0, 200_000), max_size=12))
def test_the_pieces_a_content_comes_in_leave_no_trace(seed: int, cuts: list[int]) -> None:
    data = content(seed, 200_000)
    edges = [0, *sorted(cuts), len(data)]
    wanted = [found for found in cut.pieces(data, cut.rolling) if found[0] < found[1]]
    assert [*chunks([data[a:b] for a, b in pairwise(edges)])] == wanted


@given(
    st.lists(
        st.sampled_from([b"x", b"\0", bytes(7), bytes(512), bytes(1023), bytes(1024), b"\0x\0"]),
        max_size=40,
    )
)
def test_holes_are_runs_of_1024_zeros_or_more(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    wanted = [found for found in cut.pieces(data, cut.rolling) if found[0] < found[1]]
    assert [*chunks(pieces)] == wanted


def test_parts_are_the_content() -> None:
    data = content(3, 300_000)
    cutter = Chunker()
    parts = [part for at in range(0, len(data), 999) for part in cutter.feed(data[at : at + 999])]
    assert b"".join(part.data or bytes(part.zeros) for part in [*parts, *cutter.finish()]) == data


@given(st.integers(0, 1 << 30), st.lists(st.integers(0, 60_000), max_size=12), st.booleans())
def test_many_contents_are_cut_as_each_alone(seed: int, sizes: list[int], between: bool) -> None:
    """Among them files of zeros side by side, which together look like one hole."""
    contents = [content(seed + number, size) for number, size in enumerate(sizes)]
    if between:
        contents = [one for each in contents for one in (each, bytes(len(each) % 2048))]
    found = cut_many(contents)
    for number, data in enumerate(contents):
        wanted = [(end, kind) for start, end, kind in cut.pieces(data, cut.rolling) if start < end]
        assert (
            found.get(number, [(len(data), bool(wanted and wanted[0][1]))][: len(data)]) == wanted
        )


@given(
    st.lists(
        st.sampled_from(
            [b"x", b"\0", bytes(511), bytes(512), bytes(1023), bytes(1024), bytes(3000)]
        )
    )
)
def test_holes_are_found_wherever_they_lie(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert [*holes(data, len(data))] == [found.span() for found in re.finditer(rb"\0{1024,}", data)]
