"""Ranges against the plainest model there is: sets of integers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import FormatError
from zchunked.ranges import (
    ByteRange,
    Spans,
    merge,
    parse_content_range,
    range_header,
    subtract,
    total,
)

SPANS = st.builds(
    lambda start, size: ByteRange(start, start + size), st.integers(0, 60), st.integers(1, 15)
)
LISTS = st.lists(SPANS, max_size=8)


@st.composite
def disjoint(draw: st.DrawFn) -> list[ByteRange]:
    """Ascending, perhaps touching."""
    spans, at = [], 0
    for gap, size in draw(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=8)):
        spans.append(ByteRange(at + gap, at + gap + size))
        at += gap + size
    return spans


def numbers(spans: list[ByteRange]) -> set[int]:
    return {number for span in spans for number in range(span.start, span.end)}


def is_orderly(spans: list[ByteRange]) -> bool:
    """Ascending, disjoint, none empty."""
    return all(span.size > 0 for span in spans) and all(
        a.end <= b.start for a, b in itertools.pairwise(spans)
    )


@given(LISTS)
def test_merge_keeps_the_bytes_and_leaves_nothing_touching(spans: list[ByteRange]) -> None:
    merged = merge(spans)
    assert numbers(merged) == numbers(spans)
    assert all(before.end < after.start for before, after in itertools.pairwise(merged))
    assert total(merged) == len(numbers(spans))
    assert merge(reversed(merged)) == merged


@given(disjoint(), disjoint())
def test_subtract_is_the_difference_of_sets(spans: list[ByteRange], have: list[ByteRange]) -> None:
    left = subtract(spans, have)
    assert numbers(left) == numbers(spans) - numbers(have)
    assert is_orderly(left)


@given(disjoint(), disjoint())
def test_what_is_taken_away_and_what_stays_add_up(
    spans: list[ByteRange], have: list[ByteRange]
) -> None:
    left = subtract(spans, have)
    assert total(left) + total(subtract(spans, left)) == total(spans)
    assert subtract(left, have) == left


@given(disjoint())
def test_the_header_is_inclusive_and_nothing_else_is(spans: list[ByteRange]) -> None:
    unit, _, text = range_header(spans).partition("=")
    assert unit == "bytes"
    pairs = [tuple(map(int, part.split("-"))) for part in text.split(",") if part]
    assert [ByteRange(first, last + 1) for first, last in pairs] == spans


def test_a_range_reads_as_mathematicians_write_it() -> None:
    assert str(ByteRange(3, 9)) == "[3,9)"
    assert ByteRange(3, 9).size == 6


@given(SPANS, st.none() | st.integers(0, 40))
def test_content_range_comes_back_as_it_was_sent(span: ByteRange, rest: int | None) -> None:
    size = None if rest is None else span.end + rest
    text = f"bytes {span.start}-{span.end - 1}/{'*' if size is None else size}"
    assert parse_content_range(text) == (span, size)
    assert parse_content_range(f" {text.replace('bytes', 'Bytes')} ") == (span, size)


@pytest.mark.parametrize("text", [
    "", "bytes", "bytes 0-4", "bytes 0-4/", "bytes */5", "bytes 4-0/9", "bytes 0-5/5",
    "bytes -5-9/10", "bytes 0-+4/5", "bytes 0-4/5,",
    "bytes 0_0-4/5", "bytes ٠-٤/٥", "bytes=0-4/5", "items 0-4/5", "bytes 0-4/5 bytes 5-9/10",
    "bytes 0-4/5\r\nX: y", "bytes 0-1.5/5",
    "bytes 0-" + "9" * 20 + "/*", "bytes 0-4/" + "9" * 5000,
])  # fmt: skip
def test_a_content_range_of_another_form_or_against_reason_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_content_range(text)


@given(st.text() | st.text("bytes 0123456789-/*"))
def test_whatever_a_server_writes_there_is_a_range_or_a_format_error(text: str) -> None:
    try:
        span, size = parse_content_range(text)
    except FormatError:
        return
    assert 0 <= span.start < span.end <= (size or span.end)


@given(disjoint(), LISTS)
def test_spans_hold_what_lies_in_one_of_them(
    spans: list[ByteRange], asked: list[ByteRange]
) -> None:
    ours = Spans(spans)
    held = [any(span.start <= one.start and one.end <= span.end for span in spans) for one in asked]
    assert [ours.hold(one.start, one.end) for one in asked] == held
    assert ours.hold_each([one.start for one in asked], [one.end for one in asked]) == held
