"""The extent map against a model that says of every single byte where it lies."""

from __future__ import annotations

import itertools
import threading

from hypothesis import given
from hypothesis import strategies as st

from zchunked.ranges import ByteRange
from zchunked.store.extents import ExtentMap, Piece

SIZE = 80
STARTS, LENGTHS = st.integers(0, SIZE - 20), st.integers(1, 20)
FILES = st.sampled_from(["a", "b"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), STARTS, LENGTHS, FILES),
        # where the last addition ended, as downloads do
        st.tuples(st.just("grow"), st.just(0), LENGTHS, FILES),
        st.tuples(st.just("cut"), STARTS, LENGTHS, st.just("")),
    ),
    max_size=20,
)


class Model:
    """For each byte of the blob its file and offset, or None."""

    def __init__(self) -> None:
        self.where: list[tuple[str, int] | None] = [None] * (SIZE + 500)

    def add(self, start: int, end: int, file: str, at: int) -> list[ByteRange]:
        fresh = [place for place in range(start, end) if self.where[place] is None]
        for place in fresh:
            self.where[place] = (file, at + place - start)
        return spans(fresh)

    def here(self) -> list[ByteRange]:
        return spans([place for place, found in enumerate(self.where) if found])


def spans(places: list[int]) -> list[ByteRange]:
    found: list[ByteRange] = []
    for place in places:
        if found and found[-1].end == place:
            found[-1] = ByteRange(found[-1].start, place + 1)
        else:
            found.append(ByteRange(place, place + 1))
    return found


@given(STEPS, st.sampled_from([1, 2, 512]))
def test_every_byte_lies_where_it_was_first_written(
    steps: list[tuple[str, int, int, str]], block_rows: int
) -> None:
    extents, model = ExtentMap(block_rows), Model()
    length = {"a": 0, "b": 0}
    last = 0
    for kind, start, size, file in steps:
        if kind == "cut":
            extents.cut(start, start + size)
            model.where[start : start + size] = [None] * size
        else:
            start = last if kind == "grow" else start  # noqa: PLW2901
            last = start + size
            assert extents.add(start, last, file, length[file]) == model.add(
                start, last, file, length[file]
            )
            length[file] += size
        assert extents.covered() == model.here()
    check_every_span(extents, model)
    again = ExtentMap()
    for start, end, file, at in extents.rows():
        again.add(start, end, file, at)
    check_every_span(again, model)


def check_every_span(extents: ExtentMap, model: Model) -> None:
    for start in range(0, SIZE, 3):
        for end in range(start + 1, SIZE + 10, 4):
            want = model.where[start:end]
            pieces = extents.pieces(start, end)
            assert extents.covers(start, end) == (None not in want) == (pieces is not None)
            if pieces is not None:
                assert [
                    (piece.file, piece.at + n) for piece in pieces for n in range(piece.size)
                ] == want


def test_rows_are_ascending_and_disjoint() -> None:
    extents = ExtentMap()
    for start in (50, 10, 30, 20, 0, 40):
        extents.add(start, start + 15, "f", start * 100)
    rows = extents.rows()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(rows))
    assert extents.covered() == [ByteRange(0, 65)]


ROWS = st.lists(st.tuples(STARTS, LENGTHS, FILES, st.integers(0, 50)), max_size=12)


@given(STEPS, ROWS, st.sampled_from([1, 2, 512]))
def test_many_at_once_are_as_one_after_the_other(
    steps: list[tuple[str, int, int, str]], more: list[tuple[int, int, str, int]], block_rows: int
) -> None:
    one, many = ExtentMap(block_rows), ExtentMap(block_rows)
    for extents in (one, many):
        for number, (kind, start, size, file) in enumerate(steps):
            if kind == "cut":
                extents.cut(start, start + size)
            else:
                extents.add(start, start + size, file, number * 100)
    rows = [(start, start + size, file, at) for start, size, file, at in more]
    spans = [(start, end) for start, end, _, _ in rows]
    assert many.covers_each(spans) == [one.covers(*span) for span in spans]
    fresh = [span for row in rows for span in one.add(*row)]
    assert [ByteRange(start, end) for start, end, _, _ in many.add_many(rows)] == fresh
    assert many.rows() == one.rows()


def test_a_growing_run_stays_one_row() -> None:
    extents = ExtentMap()
    for at in range(0, 100_000, 100):
        assert extents.add(500 + at, 600 + at, "f", at) == [ByteRange(500 + at, 600 + at)]
    assert extents.rows() == [(500, 100_500, "f", 0)]
    assert extents.pieces(700, 900) == [Piece("f", 200, 200)]


@given(STEPS, st.sampled_from([1, 2, 512]))
def test_rows_that_were_cut_or_came_second_no_longer_stand(
    steps: list[tuple[str, int, int, str]], block_rows: int
) -> None:
    extents = ExtentMap(block_rows)
    given_rows, at = [], 0
    for kind, start, size, file in steps:
        if kind == "cut":
            extents.cut(start, start + size)
        else:
            extents.add(start, start + size, file, at)
            given_rows.append((start, start + size, file, at))
            at += size
    standing = extents.still(given_rows)
    said = {
        (place, file, at + place - start)
        for start, end, file, at in standing
        for place in range(start, end)
    }
    assert said == {
        (place, file, at + place - start)
        for start, end, file, at in extents.rows()
        for place in range(start, end)
    }


def test_many_writers_at_once_lose_nothing() -> None:
    extents = ExtentMap()
    fresh: list[int] = []

    def write(worker: int) -> None:
        mine = 0
        for number in range(300):
            start = (number * 7 + worker) % 400 * 10
            mine += sum(
                span.size for span in extents.add(start, start + 25, str(worker), number * 25)
            )
            assert extents.covers(start, start + 25)
        fresh.append(mine)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(fresh) == sum(span.size for span in extents.covered())
