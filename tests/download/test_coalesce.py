"""The planner against the plainest model: need, gap and run as sets of bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.download.coalesce import (
    PART_BYTES,
    GapPolicy,
    Lengths,
    Link,
    Run,
    coalesce,
    cut,
    group,
    hull,
    missing,
    runs_for,
)
from zchunked.ranges import ByteRange, merge, subtract, total

KiB, MiB = 1 << 10, 1 << 20
CAP = 4 * MiB
"""No span of a run is longer: a broken connection costs at most the wait for this much."""


@st.composite
def needs(draw: st.DrawFn, longest: int = 50) -> list[ByteRange]:
    """Ascending and disjoint, perhaps touching."""
    spans, at = [], draw(st.integers(0, 20))
    for size, gap in draw(
        st.lists(st.tuples(st.integers(1, longest), st.integers(0, 30)), max_size=12)
    ):
        spans.append(ByteRange(at, at + size))
        at += size + gap
    return spans


LARGE = st.lists(st.tuples(st.integers(1, 10 * MiB), st.integers(0, 200 * KiB)), max_size=30).map(
    lambda pairs: [
        ByteRange(start, start + size)
        for number, (size, _) in enumerate(pairs)
        for start in [sum(a + b for a, b in pairs[:number])]
    ]
)
POLICIES = st.builds(
    GapPolicy,
    st.sampled_from([0, 1, 10, 64 * KiB, 10 * MiB]),
    st.sampled_from([0.0, 0.04, 0.5, 10.0, float("inf")]),
)


def is_orderly(spans: list[ByteRange]) -> bool:
    return all(span.size > 0 for span in spans) and all(
        a.end <= b.start for a, b in itertools.pairwise(spans)
    )


def flat(runs: list[Run]) -> list[ByteRange]:
    return [span for run in runs for span in run]


def check(needed: list[ByteRange], spans: list[ByteRange], policy: GapPolicy) -> None:
    """They cover the need, in order, without overlap, and buy only what the policy allows."""
    assert is_orderly(spans)
    assert subtract(merge(needed), spans) == []
    bought = subtract(spans, needed)
    assert all(gap.size <= policy.most for gap in bought)
    assert not bought or total(bought) <= total(needed) * policy.share
    assert all(any(gap.start == span.end for span in needed) for gap in bought), (
        "a gap lies between needed spans"
    )
    assert all(any(gap.end == span.start for span in needed) for gap in bought), (
        "a gap lies between needed spans"
    )


@given(needs(), POLICIES)
def test_coalescing_covers_the_need_and_buys_what_the_policy_allows(
    needed: list[ByteRange], policy: GapPolicy
) -> None:
    runs = coalesce(needed, policy)
    check(needed, runs, policy)
    left = [gap for gap in subtract([ByteRange(runs[0].start, runs[-1].end)], runs)] if runs else []  # noqa: C416
    bought = subtract(runs, needed)
    assert (
        not left or not bought or min(gap.size for gap in left) >= max(gap.size for gap in bought)
    ), "shortest first"


@given(needs(), st.integers(1, 60), st.integers(1, 60), st.integers(1, 4))
def test_a_cut_run_covers_the_same_need_and_respects_the_cap(
    needed: list[ByteRange], longest: int, shortest: int, jobs: int
) -> None:
    shortest = min(shortest, longest)
    policy = GapPolicy(most=10, share=float("inf"))
    pieces = cut(coalesce(needed, policy), needed, Lengths(longest, shortest, jobs))
    check(needed, pieces, policy)
    assert all(piece.size <= longest for piece in pieces)
    for number, piece in enumerate(pieces):
        assert piece.size <= max(
            shortest, total(pieces[number:]) // jobs + policy.most * len(needed)
        ), "ever shorter"


@given(needs(longest=10), st.integers(20, 60))
def test_cuts_prefer_to_fall_between_needed_spans(needed: list[ByteRange], longest: int) -> None:
    pieces = cut(coalesce(needed, GapPolicy(0, 0.0)), needed, Lengths(longest, longest, 1))
    inside = {piece.start for piece in pieces} - {span.start for span in needed}
    assert not inside, "no span is as long as half of the cap, so none needs to be cut"


@given(
    st.one_of(needs(), LARGE), POLICIES, st.integers(1, 16), st.sampled_from([0, 1, 2, 20, 1000])
)
def test_runs_cover_the_need_in_order_and_stay_below_the_cap(
    needed: list[ByteRange], policy: GapPolicy, jobs: int, spans: int
) -> None:
    runs = runs_for(needed, policy=policy, jobs=jobs, spans=spans)
    # Beside other spans in one request, a gap that is shorter than a part's header is cheaper than
    # that.
    in_parts = GapPolicy(min(policy.most, PART_BYTES), float("inf") if policy.share else 0.0)
    check(needed, flat(runs), in_parts if spans > 1 else policy)
    assert all(run for run in runs)
    for run in runs:
        assert sum(span.size for span in run) <= CAP
        assert len(run) <= max(spans, 1)
        assert hull(run) == ByteRange(run[0].start, run[-1].end)


@given(needs(), st.integers(0, 5), st.integers(1, 100))
def test_grouping_keeps_order_and_bounds(pieces: list[ByteRange], spans: int, longest: int) -> None:
    runs = group(pieces, spans, Lengths(longest, longest, 1))
    assert flat(runs) == pieces
    assert all(len(run) <= max(spans, 1) for run in runs)
    assert all(len(run) == 1 or sum(span.size for span in run) <= longest for run in runs)


def test_nothing_needed_nothing_asked() -> None:
    assert runs_for([], policy=GapPolicy(), jobs=8) == []
    assert coalesce([], GapPolicy(share=float("inf"))) == []


@pytest.mark.parametrize(
    ("gap", "runs"), [(0, 1), (1, 1), (64 * KiB, 1), (64 * KiB + 1, 2), (10 * MiB, 2)]
)
def test_a_gap_up_to_the_limit_is_bought(gap: int, runs: int) -> None:
    needed = [ByteRange(0, MiB), ByteRange(MiB + gap, 3 * MiB + gap)]
    assert len(coalesce(needed, GapPolicy())) == runs


def test_no_gap_is_bought_on_a_metered_link() -> None:
    needed = [ByteRange(at, at + 100) for at in range(0, 1000, 101)]
    assert flat(runs_for(needed, policy=GapPolicy(0, 0.0), jobs=4)) == needed


def test_gaps_without_a_budget_are_bought_up_to_their_limit() -> None:
    needed = [ByteRange(0, 1), ByteRange(1000, 1001), ByteRange(5000, 5001)]
    assert coalesce(needed, GapPolicy(most=2000, share=float("inf"))) == [
        ByteRange(0, 1001),
        ByteRange(5000, 5001),
    ]


def test_many_small_gaps_are_bounded_together() -> None:
    needed = [ByteRange(at, at + 10) for at in range(0, 100_000, 100)]
    runs = coalesce(needed, GapPolicy())
    assert total(subtract(runs, needed)) <= GapPolicy().share * total(needed)


def test_a_large_layer_is_shared_out_to_all_workers() -> None:
    runs = runs_for([ByteRange(0, 16 * MiB)], policy=GapPolicy(), jobs=8)
    sizes = list(map(total, runs))
    assert max(sizes) == MiB
    assert max(sizes[-8:]) <= 300 * KiB, "nobody ends long after the others"
    assert len(runs) < 32
    assert runs_for([ByteRange(0, 100 * KiB)], policy=GapPolicy(), jobs=8) == [
        (ByteRange(0, 100 * KiB),)
    ]


@given(
    st.lists(
        st.builds(lambda a, b: ByteRange(a, a + b), st.integers(0, 50), st.integers(1, 9)),
        max_size=8,
    ),
    needs(),
)
def test_what_is_missing_is_wanted_and_not_here(
    wanted: list[ByteRange], here: list[ByteRange]
) -> None:
    left = missing(wanted, here)
    numbers = {n for span in wanted for n in range(span.start, span.end)} - {
        n for span in here for n in range(span.start, span.end)
    }
    assert {n for span in left for n in range(span.start, span.end)} == numbers
    assert is_orderly(left)


def test_many_parts_in_one_request_stay_within_the_share() -> None:
    # headers of parts would be larger
    needed = [ByteRange(at, at + 100) for at in range(0, 10_000_000, 2_000)]
    runs = runs_for(needed, policy=GapPolicy(singles=5_000), jobs=8, spans=185)
    parts = sum(len(run) for run in runs if len(run) > 1)
    assert parts * PART_BYTES <= GapPolicy().parts * total(needed)
    assert any(len(run) > 1 for run in runs)
    assert flat(runs) == needed


def test_where_a_round_trip_is_long_part_headers_are_cheaper_than_requests() -> None:
    needed = [ByteRange(at, at + 100) for at in range(0, 6_000_000, 2_000)]
    far, near = Link(0.1, 1e6), Link(0.005, 1e8)
    assert len(runs_for(needed, policy=GapPolicy(singles=far.singles(8)), jobs=8, spans=185)) < 40
    assert (
        len(runs_for(needed, policy=GapPolicy(singles=near.singles(8)), jobs=8, spans=185)) > 2_500
    )


@given(needs(), st.integers(0, 40), st.sampled_from([0.05, 0.2, 1.0, float("inf")]))
def test_the_gaps_bought_are_the_best_there_are(
    needed: list[ByteRange], worth: int, share: float
) -> None:
    """Against all ways to buy.

    Bytes nobody needs, plus what the requests are worth, within the budget.
    """
    spans = merge(needed)
    gaps = [after.start - before.end for before, after in itertools.pairwise(spans)]

    def cost(bought: tuple[bool, ...]) -> float:
        size = sum(gap for gap, is_bought in zip(gaps, bought, strict=True) if is_bought)
        requests = 1 + len(gaps) - sum(bought)
        return size + worth * requests if size <= total(spans) * share else float("inf")

    found = coalesce(spans, GapPolicy(worth, share))
    got = total(found) - total(spans) + worth * len(found)
    best = min(map(cost, itertools.product([False, True], repeat=len(gaps)))) if spans else 0
    assert got == best


@given(needs(longest=400), st.integers(1, 4), st.sampled_from([2, 4, 185]))
def test_parts_of_one_request_are_the_best_there_are(
    needed: list[ByteRange], jobs: int, at_once: int
) -> None:
    """The same where several spans share a request: then a span costs its part header."""
    spans = merge(needed)
    far = [ByteRange(span.start * 9, span.start * 9 + span.size) for span in spans]
    gaps = [after.start - before.end for before, after in itertools.pairwise(far)]
    if not far or min(gaps, default=1) < 1:
        return
    runs = runs_for(far, policy=GapPolicy(share=1.0, parts=float("inf")), jobs=jobs, spans=at_once)
    got = sum(total(run) + PART_BYTES * len(run) for run in runs) - total(far)
    best = PART_BYTES + sum(min(gap, PART_BYTES) for gap in gaps)
    assert got <= best * 1.05
