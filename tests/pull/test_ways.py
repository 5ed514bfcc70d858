"""Which way a layer comes: fewest bytes where that is not much slower, and never the registry's
blob for a trifle.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.download.coalesce import PART_BYTES, GapPolicy, Link, coalesce, runs_for
from zchunked.pull.machine import costs_of, measured
from zchunked.pull.ways import Way, WayCost, WorkCosts, choose, cost_of, gap_in_parts, rough_cost
from zchunked.ranges import ByteRange

MB = 1_000_000


def costs(
    exact: tuple[int, float], whole: tuple[int, float], lean: tuple[int, float] | None = None
) -> list[WayCost]:
    made = [WayCost("exact", exact[0], 1, exact[1]), WayCost("whole", whole[0], 1, whole[1])]
    return [*made, WayCost("lean", lean[0], 1, lean[1])] if lean else made


@pytest.mark.parametrize(
    ("its", "way"),
    [
        (costs((86 * MB, 1.0), (197 * MB, 0.9)), "exact"),  # little slower, and half the bytes
        (costs((86 * MB, 3.0), (197 * MB, 0.8)), "whole"),  # a fast link never waits for Python
        # a slow one never pays for identity
        (costs((86 * MB, 14.0), (197 * MB, 32.0), (75 * MB, 12.2)), "lean"),
        (costs((86 * MB, 1.5), (197 * MB, 1.6), (75 * MB, 6.0)), "exact"),
        (costs((40_000, 0.011), (250_000, 0.03), (35_000, 0.010)), "exact"),  # nobody notices
        (costs((100, 1.0), (100, 1.0)), "exact"),
    ],
)
def test_the_way_that_is_taken(its: list[WayCost], way: Way) -> None:
    assert choose(its, is_rate_known=True).way == way


def test_a_link_that_nobody_knows_is_no_reason_to_give_the_blob_up() -> None:
    assert (
        choose(costs((86 * MB, 14.0), (197 * MB, 32.0), (75 * MB, 12.2)), is_rate_known=False).way
        == "exact"
    )


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 1e4)), min_size=3, max_size=3),
    st.booleans(),
)
def test_what_is_taken_is_never_much_slower_than_the_other_way_to_the_same_blob(
    its: list[tuple[int, float]], is_rate_known: bool
) -> None:
    exact, whole, lean = its
    taken = choose(costs(exact, whole, lean), is_rate_known=is_rate_known)
    assert taken.seconds <= 1.25 * min(exact[1], whole[1]) + 0.5


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=200),
    st.sampled_from([1, 50]),
)
def test_a_rough_cost_is_near_that_of_the_requests(
    needs: list[tuple[int, int]], spans: int
) -> None:
    needed, at = [], 0
    for size, gap in needs:
        needed.append(ByteRange(at, at + size))
        at += size + gap
    link = Link(0.05, 1e6)
    policy = GapPolicy(most=link.worth_of_request(4), parts=float("inf"))
    exact = cost_of("exact", runs_for(needed, policy=policy, jobs=4, spans=spans), 0.0, link, 4)
    rough = rough_cost("exact", needed, 0.0, link, 4, spans, policy)
    assert abs(rough.bytes - exact.bytes) <= 0.02 * exact.bytes + 400


def test_a_host_that_works_hard_for_each_part_makes_parts_dear() -> None:
    needed = [ByteRange(at, at + 100) for at in range(0, 1_000_000, 1000)]
    cheap = rough_cost("exact", needed, 0.0, Link(0.001, 1e8), 8, 100, GapPolicy())
    dear = rough_cost("exact", needed, 0.0, Link(0.001, 1e8, part=0.0005), 8, 100, GapPolicy())
    assert dear.seconds > cheap.seconds + 0.4


def test_what_a_frame_costs_here_is_learnt_within_reason() -> None:
    before = costs_of({})
    assert before == WorkCosts()
    assert costs_of({"frame": 1e-5}).frame == 1e-5
    assert costs_of({"frame": 5.0, "chunk": 0.0}) == WorkCosts(frame=3e-4, chunk=2e-6)
    assert measured([], 100.0, before) == {}, "nothing came, so nothing was learnt"


def spans_of(count: int, size: int, gap: int) -> list[ByteRange]:
    return [ByteRange(at * (size + gap), at * (size + gap) + size) for at in range(count)]


def test_a_host_that_works_for_each_part_is_asked_for_fewer() -> None:
    """60,000 parts are half a minute of a host that needs 0.5 ms for each, and nothing of one that
    does not.
    """
    needed = spans_of(60_000, 1_400, 1_900)
    assert gap_in_parts(needed, Link(0.001, 300e6)) == PART_BYTES
    bought = gap_in_parts(needed, Link(0.001, 300e6, part=500e-6))
    assert bought > 1_900
    cheap = [Link(0.001, 300e6, part=1e-6), Link(0.001, 300e6, part=500e-6)]
    free, dear = (rough_cost("exact", needed, 0.0, link, 8, 185, GapPolicy()) for link in cheap)
    assert dear.seconds > free.seconds + 20
    # a quarter of a second
    assert gap_in_parts(needed[:500], Link(0.001, 300e6, part=500e-6)) == PART_BYTES


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=200),
    st.floats(0, 0.1),
    st.floats(1e6, 1e9),
)
def test_gaps_are_bought_as_ways_are_chosen(
    needs: list[tuple[int, int]], part: float, rate: float
) -> None:
    needed, at = [], 0
    for size, gap in needs:
        needed.append(ByteRange(at, at + size))
        at += size + gap

    def seconds(most: int) -> float:
        runs = coalesce(needed, GapPolicy(most, float("inf")))
        return (sum(map(len_of, runs)) + len(runs) * PART_BYTES) / rate + len(runs) * part

    taken = gap_in_parts(needed, Link(0.001, rate, part))
    assert seconds(taken) <= 1.25 * min(seconds(PART_BYTES), seconds(512 << 10)) + 0.5 + 1e-9


def len_of(span: ByteRange) -> int:
    return span.size
