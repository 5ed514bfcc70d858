"""Frames: any cut of the bytes gives the same content, any loss is noticed.

No claim of a frame is believed.
"""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from tests.formats.reals import Real, reals
from tests.helpers.build.front import EMPTY_FRAME
from tests.helpers.build.mutants import mutants
from zchunked.errors import FormatError
from zchunked.formats.frames import zstd as frames
from zchunked.limits import Limits
from zchunked.oci.digest import digest_of

MiB = 1 << 20
MAGIC = b"\x28\xb5\x2f\xfd"
SMALLEST = MAGIC + b"\x20\x00\x01\x00\x00"
"""A frame of nothing: one byte of content size, one last empty block, no checksum."""


def compress(data: bytes, *, checksum: bool = True, sized: bool = False, level: int = 3) -> bytes:
    return zstandard.ZstdCompressor(
        level=level, write_checksum=checksum, write_content_size=sized
    ).compress(data)


def skippable(payload: bytes, kind: int = 0) -> bytes:
    return (0x184D2A50 + kind).to_bytes(4, "little") + len(payload).to_bytes(4, "little") + payload


FRAMES = st.one_of(
    st.builds(
        lambda data, checksum, sized: (data, compress(data, checksum=checksum, sized=sized)),
        st.binary(max_size=400) | st.integers(0, 300_000).map(bytes),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        lambda junk, kind: (b"", skippable(junk, kind)), st.binary(max_size=40), st.integers(0, 15)
    ),
    st.sampled_from([(b"", EMPTY_FRAME), (b"", SMALLEST), (b"", skippable(MAGIC * 3))]),
)
BLOBS = st.lists(FRAMES, max_size=6).map(
    lambda parts: (b"".join(a for a, _ in parts), b"".join(b for _, b in parts))
)


def cut(data: bytes, edges: list[float]) -> Iterator[memoryview]:
    bounds = sorted({0, len(data), *(int(edge * len(data)) for edge in edges)})
    for start, end in itertools.pairwise(bounds):
        yield memoryview(data)[start:end]


EDGES = st.lists(st.floats(0, 1), max_size=8)


@given(BLOBS, EDGES)
@example((b"", SMALLEST * 5000), [])
@example((b"", EMPTY_FRAME * 3000 + skippable(b"") * 1000), [0.5])
def test_any_cut_into_pieces_gives_the_same_content(
    blob: tuple[bytes, bytes], edges: list[float]
) -> None:
    content, data = blob
    assert b"".join(frames.stream(cut(data, edges))) == content
    assert frames.decode(data, len(content)) == content


@given(BLOBS)
def test_byte_by_byte_is_a_cut_too(blob: tuple[bytes, bytes]) -> None:
    content, data = blob
    data = data[:600]
    decoder = frames.FrameDecoder()
    out = b"".join(b"".join(decoder.feed(bytes([byte]))) for byte in data)
    assert content.startswith(out)


@given(st.lists(FRAMES, min_size=1, max_size=4), st.floats(0, 1, exclude_max=True), EDGES)
def test_a_truncation_anywhere_is_noticed(
    parts: list[tuple[bytes, bytes]], where: float, edges: list[float]
) -> None:
    data = b"".join(frame for _, frame in parts)
    end = int(where * len(data))
    boundaries, at = {0}, 0
    for _, frame in parts:
        at += len(frame)
        boundaries.add(at)
    if end not in boundaries:
        with pytest.raises(FormatError):
            list(frames.stream(cut(data[:end], edges)))
    content = b"".join(content for content, _ in parts)
    try:
        assert frames.decode(data[:end], len(content)) == content
        assert end in boundaries, "only frames without content may be missing"
    except FormatError:
        pass


@given(BLOBS, st.integers(-3, 3))
def test_only_the_exact_size_will_do(blob: tuple[bytes, bytes], off: int) -> None:
    content, data = blob
    size = len(content) + off
    if off and size >= 0:
        with pytest.raises(FormatError):
            frames.decode(data, size)


@given(
    mutants(
        compress(b"hello world\n" * 50) + skippable(b"junk") + compress(bytes(70_000), sized=True)
    )
    | st.binary(),
    EDGES,
)
def test_whatever_the_bytes_the_promised_size_or_a_format_error(
    data: bytes, edges: list[float]
) -> None:
    with contextlib.suppress(FormatError):
        assert len(frames.decode(data, 70_600)) == 70_600
    try:
        passed = sum(len(out) for out in frames.stream(cut(data, edges), most=100_000))
        assert passed <= 100_000
    except FormatError:
        pass


@pytest.mark.parametrize("real", reals(), ids=str)
def test_a_real_layer_decodes_to_its_tar_and_each_chunk_to_itself(real: Real) -> None:
    blob = real.blob
    tar = b"".join(frames.stream([blob]))
    assert digest_of(tar) == real.truths.get("decompresses_to", real.truths["diff_id"])
    for chunk in real.truths["chunks"]:
        assert (
            digest_of(frames.decode(blob[chunk["start"] : chunk["end"]], chunk["usize"]))
            == chunk["digest"]
        )


# ── frames that lie ──


def peak_of_decoding(data: bytes, size: int) -> int:
    """Bytes of Python memory at the peak of an attempt that must fail."""
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            frames.decode(data, size)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_costs_no_more_than_one_step() -> None:
    bomb = compress(bytes(256 * MiB), level=1)
    assert len(bomb) < 100_000
    assert peak_of_decoding(bomb, 1000) < 40 * MiB
    passed: list[int] = []
    with pytest.raises(FormatError, match="more than"):
        passed.extend(map(len, frames.stream([bomb], most=5000)))
    assert sum(passed) <= 5000


def test_a_bomb_after_the_promised_size_is_not_passed_on() -> None:
    with pytest.raises(FormatError):
        frames.decode(compress(b"x" * 1000) + compress(bytes(64 * MiB), level=1), 1000)


def test_a_frame_that_claims_a_tebibyte_gets_nothing() -> None:
    claims = (
        MAGIC + b"\xe0" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"
    )  # single segment: the window is the size
    assert peak_of_decoding(claims, 1000) < 5 * MiB
    assert peak_of_decoding(claims, 0) < 5 * MiB


@pytest.mark.parametrize("log", [28, 31, 41])
def test_a_window_above_our_limit_is_refused(log: int) -> None:
    data = MAGIC + b"\x00" + bytes([(log - 10) << 3]) + b"\x01\x00\x00"
    with pytest.raises(FormatError):
        list(frames.stream([data]))


def test_the_windows_of_real_writers_are_accepted() -> None:
    for log in (23, 25, 27):
        data = MAGIC + b"\x00" + bytes([(log - 10) << 3]) + b"\x01\x00\x00"
        assert list(frames.stream([data])) == []
    with pytest.raises(FormatError):
        list(
            frames.stream(
                [MAGIC + b"\x00" + bytes([(23 - 10) << 3]) + b"\x01\x00\x00"],
                Limits(window_bytes=1 << 20),
            )
        )


def test_a_frame_that_needs_a_dictionary_is_refused() -> None:
    dictionary = zstandard.ZstdCompressionDict(b"hello world, this is a dictionary of words " * 20)
    data = zstandard.ZstdCompressor(dict_data=dictionary).compress(
        b"hello world, this is a dictionary"
    )
    with pytest.raises(FormatError):
        frames.decode(data, 33)


def test_a_wrong_checksum_is_noticed_although_the_size_is_right() -> None:
    data = compress(b"hello world\n", sized=True)
    with pytest.raises(FormatError):
        frames.decode(data[:-1] + bytes([data[-1] ^ 1]), 12)


@pytest.mark.parametrize(
    "rest",
    [b"\0", b"junk", MAGIC, MAGIC[:3], skippable(b"abc")[:-1], b"\x50\x2a\x4d\x18\xff\xff\xff\xff"],
)
def test_anything_but_whole_frames_at_the_end_is_refused(rest: bytes) -> None:
    data = compress(b"hello") + rest
    with pytest.raises(FormatError):
        frames.decode(data, 5)
    with pytest.raises(FormatError):
        list(frames.stream([data]))


def test_an_error_does_not_spoil_the_next_decoding() -> None:
    good = compress(b"hello", sized=True)
    for bad in (good[:-1], b"junk", MAGIC + b"\xff" * 20):
        with pytest.raises(FormatError):
            frames.decode(bad, 5)
        assert frames.decode(good, 5) == b"hello"


SHAPES = st.sampled_from(
    ["whole", "two", "cut", "more", "skippable", "unsized", "longer", "shorter"]
)


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=3000), st.integers(1, 200), SHAPES, st.booleans()),
        max_size=6,
    )
)
def test_many_chunks_at_once_are_what_each_is_alone(
    rows: list[tuple[bytes, int, str, bool]],
) -> None:
    """Raw, repeated and compressed blocks, with and without a checksum.

    And all that is no chunk of its size.
    """
    chunks: list[bytes] = []
    sizes: list[int] = []
    for content, times, shape, is_summed in rows:
        data = content * times
        frame = zstandard.ZstdCompressor(
            write_checksum=is_summed, write_content_size=shape != "unsized"
        ).compress(data)
        made = {
            "two": frame + frame,
            "cut": frame[:-1],
            "more": frame + b"x",
            "skippable": b"\x50\x2a\x4d\x18\x01\0\0\0x" + frame,
        }
        chunks.append(made.get(shape, frame))
        sizes.append(
            max(1, len(data) + {"longer": 1, "shorter": -1, "two": len(data)}.get(shape, 0))
        )

    def alone(chunk: bytes, size: int) -> bytes | None:
        try:
            return frames.decode(chunk, size)
        except FormatError:
            return None

    want = [alone(*one) for one in zip(chunks, sizes, strict=True)]
    assert frames.decode_many(chunks, sizes) == want
    assert frames.decode_many([memoryview(chunk) for chunk in chunks], sizes) == want


@pytest.mark.parametrize(
    ("at", "flip"), [(0, 1), (1, 1), (2, 1), (3, 1), (5, 0xF8)], ids=[*"zstd", "window"]
)
def test_a_frame_with_a_broken_header_is_broken_among_others_too(at: int, flip: int) -> None:
    frame = bytearray(compress(b"one"))
    frame[at] ^= flip
    with pytest.raises(FormatError):
        frames.decode(bytes(frame), 3)
    assert frames.decode_many([bytes(frame), compress(b"two")], [3, 3]) == [None, b"two"]


def test_every_window_is_taken_or_refused_alone_and_among_others_alike() -> None:
    frame = bytearray(compress(b"one"))
    for window in range(256):
        frame[5] = window
        try:
            alone: bytes | None = frames.decode(bytes(frame), 3)
        except FormatError:
            alone = None
        assert frames.decode_many([bytes(frame), compress(b"two")], [3, 3]) == [alone, b"two"], hex(
            window
        )
