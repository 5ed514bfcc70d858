"""The pure part of a collection: what goes, by what holders want and what a store may weigh."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from zchunked.maintenance.gc_plan import Budget, GcPlan, Holder, plan
from zchunked.ranges import ByteRange, total


def holder(
    name: str, *blobs: str, at: float = 0.0, fixed: bool = False, **parts: list[ByteRange]
) -> Holder:
    return Holder(name, frozenset(blobs), at, fixed, parts)


ROWS = [
    ("f", 0, 100, "one", 0),
    ("f", 40, 60, "two", 0),  # shared with `one`
    ("g", 0, 1000, "two", 20),
    ("h", 0, 10, "three", 0),
]
SIZES = {"f": 100, "g": 1000, "h": 10, "orphan": 7}


def planned(*holders: Holder, budget: Budget | None = None, busy: tuple[str, ...] = ()) -> GcPlan:
    return plan(holders, ROWS, SIZES, ["one", "two", "three"], busy=busy, budget=budget)


def test_what_nobody_reaches_goes_and_shared_bytes_live_as_long_as_one_who_has_them() -> None:
    found = planned(holder("image", "two"))
    assert found.dead == ["one", "three"]
    assert {file.name: file.live for file in found.files} == {
        "f": 20,
        "g": 1000,
        "h": 0,
        "orphan": 0,
    }
    assert found.compact == ["f"]
    assert found.kept_bytes == 1020


def test_a_dead_blob_keeps_the_parts_that_a_layer_was_rebuilt_from() -> None:
    found = planned(holder("image", "two", one=[ByteRange(90, 100)]))
    assert found.dead == ["three"]
    assert found.trimmed == {"one": [ByteRange(90, 100)]}
    assert next(file.live for file in found.files if file.name == "f") == 30


def test_a_file_that_somebody_uses_is_not_compacted() -> None:
    assert planned(holder("image", "two"), busy=("f",)).compact == []


def test_a_budget_takes_the_oldest_first_and_never_what_runs() -> None:
    new, old = holder("new", "three", at=2), holder("old", "two", at=1)
    runs = holder("runs", "one", fixed=True)
    assert planned(new, old, runs, budget=Budget(2000)).given_up == []
    assert planned(new, old, runs, budget=Budget(500)).given_up == [old]
    assert planned(new, old, runs, budget=Budget(0)).given_up == [new, old]
    assert planned(new, old, budget=Budget(1100, overhead=100)).given_up == [old]


def test_a_budget_compacts_files_of_which_more_than_half_is_alive() -> None:
    rows = [("f", 0, 70, "one", 0), ("g", 0, 90, "one", 70)]
    found = plan([holder("image", "one")], rows, {"f": 100, "g": 100}, ["one"], budget=Budget(170))
    assert found.compact == ["f"]
    assert found.kept_bytes == 170


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40), st.integers(1, 30), st.sampled_from("abcd"), st.integers(0, 50)
        ),
        max_size=20,
    ),
    st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.integers(0, 9)), max_size=4),
)
def test_the_bytes_alive_are_those_of_the_rows_that_stay(
    rows: list[tuple[int, int, str, int]], images: list[tuple[set[str], int]]
) -> None:
    laid = sorted(("f", at, at + length, blob, start) for at, length, blob, start in rows)
    holders = [
        holder(str(number), *blobs, at=float(at)) for number, (blobs, at) in enumerate(images)
    ]
    found = plan(holders, laid, {"f": 100}, list("abcd"))
    kept = {blob for blobs, _ in images for blob in blobs}
    alive = {byte for _, at, end, blob, _ in laid if blob in kept for byte in range(at, end)}
    assert [file.live for file in found.files] == [len(alive)]
    assert set(found.dead) == set("abcd") - kept


@given(st.integers(0, 130), st.permutations(range(4)))
def test_a_budget_is_met_by_the_latest_images_that_fit(most: int, order: list[int]) -> None:
    rows = [("f", 30 * number, 30 * number + 30, "abcd"[number], 0) for number in range(4)]
    images = [holder(str(number), "abcd"[number], at=float(order[number])) for number in range(4)]
    found = plan(images, rows, {"f": 120}, list("abcd"), budget=Budget(most))
    assert len(found.given_up) == 4 - min(most // 30, 4)
    assert max((one.at for one in found.given_up), default=-math.inf) < min(
        (one.at for one in images if one not in found.given_up), default=math.inf
    )
    assert total(ByteRange(0, 30) for _ in range(4 - len(found.given_up))) <= max(most, 0)
