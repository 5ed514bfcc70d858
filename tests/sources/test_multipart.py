"""multipart/byteranges: the same bytes at any piece size, and nothing that was not asked for."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import FormatError
from zchunked.ranges import ByteRange
from zchunked.sources.multipart import PartReader

BLOB = random.Random(7).randbytes(400)
HULL = ByteRange(0, len(BLOB))
BOUNDARIES = st.sampled_from([b"B", b"a: odd?one", b"-", b"--", b"THIS_STRING_SEPARATES", b"x" * 70])


def body(spans: list[ByteRange], boundary: bytes = b"B", end: bytes = b"\r\n", *, blob: bytes = BLOB) -> bytes:
    text = b""
    for span in spans:
        text += b"--" + boundary + end + b"Content-Type: application/octet-stream" + end
        text += b"Content-Range: bytes %d-%d/%d" % (span.start, span.end - 1, len(blob)) + end + end
        text += blob[span.start : span.end] + end
    return text + b"--" + boundary + b"--" + end


def read(
    text: bytes, cuts: list[int], boundary: bytes = b"B", *, hull: ByteRange = HULL, most: int = 50
) -> dict[int, int]:
    """Bytes by their position."""
    reader = PartReader(boundary, len(BLOB), hull, most)
    found: dict[int, int] = {}
    edges = sorted({0, len(text), *[cut % (len(text) + 1) for cut in cuts]})
    for start, stop in pairwise(edges):
        for position, piece in reader.feed(text[start:stop]):
            found.update(enumerate(piece, position))
    reader.end()
    return found


@st.composite
def disjoint(draw: st.DrawFn) -> list[ByteRange]:
    points = sorted(draw(st.sets(st.integers(0, len(BLOB)), max_size=16)))
    return [ByteRange(a, b) for a, b in zip(points[::2], points[1::2], strict=False)]


@given(
    disjoint().flatmap(st.permutations),
    BOUNDARIES,
    st.sampled_from([b"\r\n", b"\n"]),
    st.lists(st.integers(0), max_size=40),
)
def test_any_piece_sizes_give_the_same_bytes(
    spans: list[ByteRange], boundary: bytes, end: bytes, cuts: list[int]
) -> None:
    want = {at: BLOB[at] for span in spans for at in range(span.start, span.end)}
    assert read(body(list(spans), boundary, end), cuts, boundary) == want


@given(disjoint())
def test_one_byte_at_a_time(spans: list[ByteRange]) -> None:
    text = body(spans)
    assert read(text, list(range(len(text)))) == read(text, [])


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_what_stands_before_and_after_is_skipped(before: bytes, after: bytes) -> None:
    spans = [ByteRange(3, 9)]
    if b"--B" in before:
        return
    assert read(before + b"\r\n" + body(spans) + after, []) == {at: BLOB[at] for at in range(3, 9)}


def test_a_boundary_inside_the_data_is_data() -> None:
    blob = b"abc\r\n--B--\r\n\r\n--B\r\nxyz" * 3
    reader = PartReader(b"B", len(blob), ByteRange(0, len(blob)), 1)
    text = body([ByteRange(0, len(blob))], blob=blob)
    assert b"".join([piece for _, piece in reader.feed(text)]) == blob
    reader.end()


def _part(*headers: bytes) -> bytes:
    return b"--B\r\n" + b"".join([line + b"\r\n" for line in headers]) + b"\r\n0123456789\r\n--B--\r\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(_part(b"Content-Type: x"), id="no content-range"),
        pytest.param(_part(b"Content-Range: bytes 0-9/400", b"content-range: bytes 0-9/400"), id="two of them"),
        pytest.param(_part(b"Content-Range: bytes 0-9/401"), id="of another blob"),
        pytest.param(_part(b"Content-Range: bytes 9-0/400"), id="backwards"),
        pytest.param(_part(b"Content-Range: bytes 95-104/400"), id="beyond what was asked"),
        pytest.param(_part(b"Content-Range: bytes 0-9/400", b"no colon"), id="no header"),
        pytest.param(_part(b"Content-Range: bytes 0-9/400", b"X: " + b"y" * 5000), id="endless headers"),
        pytest.param(_part(b"Content-Range: bytes 0-3/400"), id="more bytes than the part announced"),
        pytest.param(_part(b"Content-Range: bytes 0-19/400"), id="fewer bytes than the part announced"),
        pytest.param(body([ByteRange(0, 10)] * 51), id="endless parts"),
        pytest.param(body([ByteRange(0, 90)] * 2), id="more bytes than were asked for"),
        pytest.param(body([ByteRange(0, 10)])[:-4], id="no last boundary"),
        pytest.param(b"<html>" * 1000, id="no boundary at all"),
        pytest.param(b"", id="nothing"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_hostile_bodies_are_refused(text: bytes, size: int) -> None:
    with pytest.raises(FormatError):
        read(text, list(range(0, len(text), size)), hull=ByteRange(0, 100))


@given(st.binary(max_size=300) | disjoint().map(body), st.binary(max_size=10), st.integers(0, 300))
def test_any_bytes_are_parts_or_a_format_error(text: bytes, junk: bytes, at: int) -> None:
    try:
        found = read(text[:at] + junk + text[at:], [at])
    except FormatError:
        return
    assert all(0 <= position < len(BLOB) for position in found)


def test_what_was_cut_short_was_in_order_before() -> None:
    reader = PartReader(b"B", len(BLOB), HULL, 2)
    list(reader.feed(body([ByteRange(0, 50)])[:-30]))
    with pytest.raises(FormatError):
        reader.end()
    assert reader.is_cut_short
