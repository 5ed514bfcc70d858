"""multipart/byteranges: the same bytes at any piece size, and nothing that was not asked for."""

import random
from collections.abc import Iterable
from itertools import chain, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.build.mutants import mutants
from zchunked.errors import FormatError
from zchunked.interfaces import Pieces
from zchunked.ranges import ByteRange
from zchunked.sources.http.ranges.multipart import PartReader

BLOB = random.Random(7).randbytes(400)
HULL = ByteRange(0, len(BLOB))
BOUNDARIES = st.sampled_from(
    [b"B", b"a: odd?one", b"-", b"--", b"THIS_STRING_SEPARATES", b"x" * 70]
)


def body(
    spans: list[ByteRange], boundary: bytes = b"B", end: bytes = b"\r\n", *, blob: bytes = BLOB
) -> bytes:
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
        for position, piece in chain.from_iterable(reader.feed(text[start:stop])):
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


class Careful(PartReader):
    """Takes the careful way, always."""

    def _open_usual(self, data: bytes, at: int) -> None:
        return None


KINDS = [
    *(
        b"",
        b"Content-Type: text/plain",
        b"content-type:x",
        b"X-Other: y",
        b"Content-Type: " + b"x" * 5000,
    ),
    *(b"X Other: y", b"Content-Range: bytes 100-139/400", b"Content-Type : x", b"Content-Type"),
]
PLACES = [
    b"Content-Range: bytes " + place
    for place in [
        *(
            b"100-139/400",
            b"00100-139/400",
            b" 100-139/400 ",
            b"100-139/*",
            b"100-139/0400",
            b"100-139/401",
        ),
        *(
            b"100-99/400",
            b"139-100/400",
            b"390-429/400",
            b"300-339/400",
            b"0-399/400",
            b"-139/400",
            b"100-139/400\0",
        ),
        *(
            b"100 -139/400",
            b"100- 139/400",
            b"+100-139/400",
            b"1_00-139/400",
            b"100-139/4 00",
            b"9" * 20 + b"-139/400",
        ),
    ]
] + [
    b"CONTENT-range: bytes 100-139/400",
    b"Content-Range:bytes 100-139/400",
    b"Content-Range: items 100-139/400",
    b"",
]
DELIMITERS = [
    b"--B\r\n",
    b"--B \r\n",
    b"--b\r\n",
    b"--Bx\r\n",
    b"--B\n",
    b"--B\r\r\n",
    b"--B--\r\n",
]


def odd(lines: Iterable[bytes], delimiter: bytes = b"--B\r\n", end: bytes = b"\r\n") -> bytes:
    """Between two parts as nearly all servers write them, one as others may, or nobody should."""
    usual = body([ByteRange(0, 40), ByteRange(200, 240)])
    second = usual.index(b"--B", 1)
    head = end.join([*[line for line in lines if line], b"", b""])
    return usual[:second] + delimiter + head + BLOB[100:140] + end + usual[second:]


def check_both_ways(text: bytes, cuts: list[int], most: int = 16, hull: ByteRange = HULL) -> None:
    """The same bytes after each cut, and in the end the same verdict."""
    quick, careful = (kind(b"B", len(BLOB), hull, most) for kind in (PartReader, Careful))
    edges = sorted({0, len(text), *[cut % (len(text) + 1) for cut in cuts]})
    for start, stop in pairwise(edges):
        came, verdicts = zip(
            *[fed(reader, text[start:stop]) for reader in (quick, careful)], strict=True
        )
        assert came[0] == came[1]
        assert verdicts[0] == verdicts[1]
        if verdicts[0]:
            return
    assert ended(quick) == ended(careful)
    assert quick.is_cut_short == careful.is_cut_short


@pytest.mark.parametrize("hull", [HULL, ByteRange(0, 300)], ids=str)
def test_the_quick_way_and_the_careful_one_see_the_same(hull: ByteRange) -> None:
    for lines in product(KINDS, PLACES, KINDS):
        check_both_ways(odd(lines), [], hull=hull)
    for place, delimiter, end in product(PLACES, DELIMITERS, [b"\r\n", b"\n"]):
        check_both_ways(odd([place], delimiter, end), [], hull=hull)


@given(
    st.tuples(*map(st.sampled_from, (KINDS, PLACES, KINDS)))
    .map(odd)
    .flatmap(lambda text: st.just(text) | mutants(text)),
    st.lists(st.integers(0), max_size=12),
    st.integers(2, 5),
)
def test_both_ways_see_the_same_in_whatever_pieces(text: bytes, cuts: list[int], most: int) -> None:
    check_both_ways(text, cuts, most)


def fed(reader: PartReader, data: bytes) -> tuple[list[tuple[int, bytes]], str]:
    """What it brought, all at once, and what was wrong behind it."""
    came: list[Pieces] = []
    try:
        for pieces in reader.feed(data):
            came.append(pieces)  # noqa: PERF402 - what comes before an error counts
    except FormatError as error:
        return _flat(came), str(error)
    return _flat(came), ""


def _flat(came: list[Pieces]) -> list[tuple[int, bytes]]:
    assert len(came) <= 1
    assert all(came)
    return [(position, bytes(piece)) for position, piece in chain.from_iterable(came)]


def ended(reader: PartReader) -> str:
    try:
        reader.end()
    except FormatError as error:
        return str(error)
    return ""


@given(disjoint().flatmap(st.permutations), st.lists(st.integers(0), max_size=40))
def test_nothing_is_held_back(spans: list[ByteRange], cuts: list[int]) -> None:
    text, places = b"", list[int]()
    for span in spans:
        head = b"\r\n--B\r\nContent-Range: bytes %d-%d/400\r\n\r\n" % (span.start, span.end - 1)
        places += [-1] * len(head) + list(range(span.start, span.end))
        text += head + BLOB[span.start : span.end]
    reader, came = PartReader(b"B", len(BLOB), HULL, len(spans)), list[int]()
    edges = sorted({0, len(text), *[cut % (len(text) + 1) for cut in cuts]})
    for start, stop in pairwise(edges):
        for position, piece in chain.from_iterable(reader.feed(text[start:stop])):
            came += range(position, position + len(piece))
        assert came == [place for place in places[:stop] if place >= 0]


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
    assert b"".join([piece for _, piece in chain.from_iterable(reader.feed(text))]) == blob
    reader.end()


def _part(*headers: bytes) -> bytes:
    return (
        b"--B\r\n" + b"".join([line + b"\r\n" for line in headers]) + b"\r\n0123456789\r\n--B--\r\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(_part(b"Content-Type: x"), id="no content-range"),
        pytest.param(
            _part(b"Content-Range: bytes 0-9/400", b"content-range: bytes 0-9/400"),
            id="two of them",
        ),
        pytest.param(_part(b"Content-Range: bytes 0-9/401"), id="of another blob"),
        pytest.param(_part(b"Content-Range: bytes 9-0/400"), id="backwards"),
        pytest.param(_part(b"Content-Range: bytes 95-104/400"), id="beyond what was asked"),
        pytest.param(_part(b"Content-Range: bytes 0-9/400", b"no colon"), id="no header"),
        pytest.param(
            _part(b"Content-Range: bytes 0-9/400", b"X: " + b"y" * 5000), id="endless headers"
        ),
        pytest.param(
            _part(b"Content-Range: bytes 0-3/400"), id="more bytes than the part announced"
        ),
        pytest.param(
            _part(b"Content-Range: bytes 0-19/400"), id="fewer bytes than the part announced"
        ),
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
