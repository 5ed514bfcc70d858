"""The tar-split: JSON lines, cut anywhere."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.reals import Real, reals
from tests.helpers.build.front import Entry, chunked_layer, make_tar
from tests.helpers.build.mutants import mutants
from zchunked.errors import FormatError
from zchunked.formats.tars.tarsplit import FILE, SEGMENT, Line, parse_lines
from zchunked.limits import Limits

MEMBERS = [
    Entry("etc/", type="dir"),
    Entry("etc/hello", b"hello\n"),
    Entry(b"caf\xe9", b"x" * 700),
    Entry("l", type="symlink", linkname="a"),
]
TEXT = chunked_layer(make_tar(MEMBERS)).tar_split_json


def lines_of(pieces: list[bytes], limits: Limits | None = None) -> list[Line]:
    return [line for batch in parse_lines(pieces, limits or Limits()) for line in batch]


def cut(data: bytes, edges: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(edge % (len(data) + 1) for edge in edges)})
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


def test_lines_say_what_stands_between_the_files() -> None:
    lines = lines_of([TEXT])
    assert [line.type for line in lines] == [SEGMENT, FILE] * 4 + [SEGMENT]
    files = lines[1::2]
    assert [line.name for line in files] == ["etc/", "etc/hello", None, "l"]
    assert [line.name_raw for line in files] == [None, None, b"caf\xe9", None]
    assert [line.size for line in files] == [0, 6, 700, 0]
    assert [len(line.payload or b"") for line in files] == [0, 8, 8, 0]


@pytest.mark.parametrize(
    "real", [real for real in reals() if real.truths.get("tar_split")], ids=str
)
def test_the_lines_of_real_writers(real: Real) -> None:
    lines = lines_of([real.tarsplit_text])
    assert len(lines) == real.truths["tar_split"]["lines"]
    segments = sum(len(line.payload or b"") for line in lines if line.type == SEGMENT)
    contents = sum(chunk["usize"] for chunk in real.truths["chunks"])
    if real.sound:
        assert segments + contents == real.truths["tar_size"]


@given(st.lists(st.integers(0, 10**6), max_size=12))
def test_any_cut_into_pieces_gives_the_same_lines(edges: list[int]) -> None:
    assert lines_of(cut(TEXT, edges)) == lines_of([TEXT])


def test_a_long_text_comes_in_batches_so_that_memory_stays_small() -> None:
    line = (
        json.dumps({"type": 2, "payload": base64.b64encode(bytes(3000)).decode()}).encode() + b"\n"
    )
    text = line * 1000
    batches = list(parse_lines(text[at : at + 10_000] for at in range(0, len(text), 10_000)))
    assert len(batches) > 10
    assert sum(map(len, batches)) == 1000


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"\n\n", b"  \n", TEXT.rstrip(), TEXT + b"\n\n", TEXT.replace(b"\n", b" \r\n\n")],
)
def test_white_space_between_lines_is_nothing(text: bytes) -> None:
    assert len(lines_of([text])) in (0, 9)


BROKEN = [
    b"x", b"{", b"[]", b"null", b'{"type":1', b'{"payload":"AAAA"}', b'{"type":"1"}',
        b'{"type":1,"size":-1}',
    b'{"type":1,"size":1.5}',
    b'{"type":1,"size":9223372036854775808}', b'{"type":2,"payload":"A"}',
        b'{"type":2,"payload":"AA=A"}',
    b'{"type":2,"payload":"AA\\n=="}',
    b'{"type":2,"payload":"AAA-"}', b'{"type":2,"payload":[0]}', b'{"type":1,"name":1}',
    b'{"type":1,"name":"\xff"}', b'{"type":1,"name":"\\ud800"}',
    b'{"type":1,"name_raw":"%%"}', TEXT[:-20], TEXT + b"junk", b"[" * 100_000, b'{"type":' +
        b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        lines_of([text])
    with pytest.raises(FormatError):
        lines_of([TEXT, text + b"\n", TEXT])


@given(
    mutants(TEXT)
    | st.binary()
    | st.lists(st.sampled_from(TEXT.splitlines(keepends=True))).map(b"".join),
    st.lists(st.integers(0, 10**6), max_size=5),
)
def test_whatever_the_bytes_lines_or_a_format_error(text: bytes, edges: list[int]) -> None:
    try:
        lines = lines_of(cut(text, edges))
    except FormatError:
        return
    assert all(0 <= line.size < 2**63 for line in lines)


def test_an_endless_line_ends_at_our_limit() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield b'{"type":2,"payload":"'
        while True:
            taken += 10_000
            yield b"A" * 10_000

    with pytest.raises(FormatError, match="is longer than 100000 bytes"):
        list(parse_lines(endless(), Limits(tarsplit_line_bytes=100_000)))
    assert taken < 500_000


@pytest.mark.parametrize("piece", [10_000, 10**7])
def test_a_line_above_our_limit_is_refused_wherever_it_stands(piece: int) -> None:
    long = b'{"type":2,"payload":"' + b"A" * 200_000 + b'"}\n'
    text = TEXT + long + TEXT
    pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
    with pytest.raises(FormatError, match="is longer than 100000 bytes"):
        lines_of(pieces, Limits(tarsplit_line_bytes=100_000))
    assert len(lines_of(pieces)) == 19
