"""Whole layer blobs → tar: above all gzip as it is in the field, of any number of members."""

from __future__ import annotations

import gzip
import itertools
import random
import sys
import zlib
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zchunked.errors import FormatError, LimitError
from zchunked.formats.frames import decompress
from zchunked.formats.frames.decompress import unpacked
from zchunked.limits import Limits

EMPTY_MEMBER = gzip.compress(b"", mtime=0)
CUTS = (1, 7, 777, 4096, 65_537, 1 << 20)


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def unpacker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every test with isal and without."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    else:
        pytest.importorskip("isal", reason="no wheels of isal for this machine")
    fastest = decompress.fastest_inflate
    fastest.cache_clear()
    yield request.param
    fastest.cache_clear()


def cut(blob: bytes, size: int) -> list[bytes]:
    return [blob[at : at + size] for at in range(0, len(blob), size)]


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def member(data: bytes, level: int = 6) -> bytes:
    return gzip.compress(data, level, mtime=0)


BLOBS = {
    "one member": member(noise(300_000)),
    "two members that do not compress": member(noise(300_000, 2)) + member(noise(300_000, 3)),
    "three members that compress well": b"".join(member(bytes([n]) * 2_000_000) for n in range(3)),
    "a member that ends where a block of output does": member(bytes(256 << 10)) +
        member(bytes(512 << 10)),
    "hundreds of small ones, as bgzip writes": b"".join(member(noise(50 + n,
        n)) for n in range(400)),
    "empty ones": EMPTY_MEMBER + member(b"a") + 3 * EMPTY_MEMBER + member(b"b") + EMPTY_MEMBER,
    "nothing but an empty one": EMPTY_MEMBER,
    "zeros behind the last member": member(noise(1000)) + bytes(70_000),
}  # fmt: skip


@pytest.mark.parametrize(
    ("blob", "size"),
    [
        pytest.param(blob, size, id=f"{name}-{size}")
        for name, blob in BLOBS.items()
        for size in CUTS
        if size > 1 or len(blob) <= 100_000  # single bytes of a long one say nothing new
    ],
)
def test_every_member_of_a_gzip_layer_however_it_is_cut(blob: bytes, size: int) -> None:
    pieces = list(itertools.islice(unpacked(cut(blob, size)), 100_000))
    assert b"".join(pieces) == gzip.decompress(blob)
    assert all(pieces)
    assert max(map(len, pieces), default=0) <= 256 << 10


def test_the_input_of_zlib_is_linear_in_the_blob(
    unpacker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zlib copies what it did not use at each member's end.

    A piece with 20,000 members is not copied 20,000 times.
    """
    given = 0
    real, broken = decompress.fastest_inflate()
    assert (broken is zlib.error) == (unpacker == "zlib")

    class Counted:
        def __init__(self, wbits: int) -> None:
            self._real = real(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal given
            given += len(data)
            return self._real.decompress(data, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    monkeypatch.setattr(decompress, "fastest_inflate", lambda: (Counted, broken))
    blob = member(b"x") + (EMPTY_MEMBER + b"\0") * 20_000
    assert b"".join(unpacked([blob])) == b"x"
    assert given < 150 * len(blob)


@pytest.mark.parametrize(
    "blob",
    [
        EMPTY_MEMBER[:-1],
        member(b"abc") + EMPTY_MEMBER[:5],
        member(b"abc") + b"junk",
        member(b"abc") + b"\0\0junk",
    ],
    ids=["cut short", "second one cut short", "junk behind", "zeros, then junk"],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_broken_gzip(blob: bytes, size: int) -> None:
    with pytest.raises(FormatError, match="gzip"):
        list(unpacked(cut(blob, size)))


def test_a_bomb_of_many_members_ends_at_the_limit() -> None:
    bomb = member(bytes(1 << 20))
    with pytest.raises(LimitError):
        for _ in unpacked(itertools.repeat(bomb), Limits(tar_bytes=8 << 20)):
            pass


LENGTHS = st.lists(
    st.integers(0, 3000) | st.sampled_from([256 << 10, (256 << 10) + 1, 600_000]),
    min_size=1,
    max_size=5,
)


@given(LENGTHS, st.lists(st.integers(0, 5000), max_size=4), st.integers(0, 3))
@example([600_000, 1024, 512], [], 0)
@example([256 << 10, 256 << 10, 1], [], 2)
def test_a_gzip_file_of_several_members_is_their_content(
    lengths: list[int], edges: list[int], zeros: int
) -> None:
    """In one piece as well.

    A member that needs several steps is followed by others in the same piece.
    """
    members = [bytes((number + 1,)) * length for number, length in enumerate(lengths)]
    data = b"".join(gzip.compress(member, mtime=0) for member in members) + bytes(zeros)
    bounds = sorted({0, len(data), *(edge for edge in edges if edge < len(data))})
    assert b"".join(unpacked([data[start:end] for start, end in pairwise(bounds)])) == b"".join(
        members
    )
