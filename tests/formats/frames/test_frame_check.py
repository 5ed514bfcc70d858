"""Damaged frames are found, whatever is wrong with them, and sound ones are not."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.frames.test_frame_map import map_of
from tests.formats.reals import Real, reals
from tests.helpers.build.mutants import mutants
from zchunked.formats.frames import zstd
from zchunked.formats.frames.frame_check import damaged
from zchunked.formats.frames.frame_map import PAYLOAD, FrameMap


def payloads(frames: FrameMap) -> list[int]:
    return [number for number, kind in enumerate(frames.kinds) if kind == PAYLOAD]


def cut(frames: FrameMap, blob: bytes, numbers: list[int]) -> list[bytes | memoryview]:
    return [memoryview(blob)[frames.edges[number] : frames.edges[number + 1]] for number in numbers]


@pytest.mark.parametrize("real", reals(), ids=str)
def test_no_frame_of_a_real_blob_is_damaged(real: Real) -> None:
    frames = map_of(real)
    numbers = payloads(frames)
    assert damaged(real.toc, frames, numbers, cut(frames, real.blob, numbers)) == []


REAL = next(real for real in reals() if real.name == "edge:edge-2")
TOC, FRAMES, BLOB = REAL.toc, map_of(REAL), REAL.blob
NUMBERS = payloads(FRAMES)


@given(st.data())
def test_exactly_the_frames_with_other_content_are_found(draw: st.DataObject) -> None:
    data = cut(FRAMES, BLOB, NUMBERS)
    hit = draw.draw(st.sets(st.integers(0, len(NUMBERS) - 1), max_size=4))
    for at in hit:
        data[at] = draw.draw(mutants(bytes(data[at])))
    found = set(damaged(TOC, FRAMES, NUMBERS, data))
    assert found <= {NUMBERS[at] for at in hit}
    for at in hit:
        if NUMBERS[at] not in found:  # bytes of the frame that mean nothing were hit
            before = cut(FRAMES, BLOB, [NUMBERS[at]])
            assert b"".join(zstd.stream([data[at]])) == b"".join(zstd.stream(before))


def test_a_bomb_in_place_of_a_frame_is_damaged() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 28))
    longest = max(NUMBERS, key=FRAMES.sizes.__getitem__)
    assert damaged(TOC, FRAMES, [NUMBERS[0], longest], [bomb, bomb]) == [NUMBERS[0], longest]


def test_only_payload_frames_can_be_checked() -> None:
    with pytest.raises(ValueError, match="only payload frames"):
        damaged(TOC, FRAMES, [0], [b""])
