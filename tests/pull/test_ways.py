"""Which way a layer comes.

Fewest bytes where that is not much slower, and never the registry's blob for a trifle.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.download.coalesce import PART_BYTES, GapPolicy, Link, coalesce, runs_for
from zchunked.oci.digest import Digest
from zchunked.pull.planning.cpu_costs import TablesRead, costs_of, measured
from zchunked.pull.planning.ways import (
    LackingLayer,
    Slack,
    WayCost,
    WorkCosts,
    choose,
    cost_of,
    gap_in_parts,
    rough_cost,
    worth_reading,
)
from zchunked.ranges import ByteRange
from zchunked.receipt import Way

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
    assert choose(its, Slack(), is_rate_known=True).way == way


def test_a_link_that_nobody_knows_is_no_reason_to_give_the_blob_up() -> None:
    its = costs((86 * MB, 14.0), (197 * MB, 32.0), (75 * MB, 12.2))
    assert choose(its, Slack(), is_rate_known=False).way == "exact"


WAY = st.tuples(st.integers(0, 10**9), st.floats(0, 1e4))


@given(st.lists(st.tuples(WAY, WAY, WAY), min_size=1, max_size=20), st.booleans())
def test_an_image_is_never_much_slower_than_by_the_other_ways_to_the_same_blobs(
    layers: list[tuple[tuple[int, float], ...]], is_rate_known: bool
) -> None:
    """The half second is there once, however many layers there are."""
    slack, spent, fastest = Slack(), 0.0, 0.0
    for exact, whole, lean in layers:
        its = costs(exact, whole, lean)
        taken = choose(its, slack, is_rate_known=is_rate_known)
        slack = slack.after(its, taken)
        spent += taken.seconds
        fastest += min(exact[1], whole[1])
    assert spent <= 1.25 * fastest + 0.5 + 1e-6 * spent


# ── which tables of contents are read ──

GIGABIT, MODEM = Link(0.001, 125e6), Link(0.04, 6e6)


def image_of(*layers: tuple[int, int | None]) -> dict[Digest, LackingLayer]:
    return {Digest(str(number)): LackingLayer(*layer) for number, layer in enumerate(layers)}


@pytest.mark.parametrize(
    ("layers", "stored_bytes", "link", "read"),
    [
        # 3,000 frames each, 0.06 s: ten fit into half a second and what the blobs take, 40 do not
        ([(MB, 80_000)] * 5, 0, GIGABIT, "01234"),
        ([(MB, 80_000)] * 40, 0, GIGABIT, ""),
        ([(MB, 80_000)] * 10, 0, MODEM, "0123456789"),
        # The one whose blob takes as long needs none of it
        ([(200 * MB, 80_000), *[(MB, 800_000)] * 6], 0, GIGABIT, "0"),
        # 117,000 frames of stored blobs, 0.8 s
        ([(50 * MB, 80_000)], 3_200_000, Link(0.001, 500e6), ""),
        ([(50 * MB, 80_000)], 3_200_000, GIGABIT, "0"),
        ([(50 * MB, 80_000)], 0, Link(0.001, 500e6), "0"),
        # What has no table, or one that is not found yet, comes whole either way
        ([(200 * MB, None), (MB, 800_000)], 0, GIGABIT, "1"),
        ([(MB, None)], 0, GIGABIT, ""),
        ([(MB, 8_000_000)], 9 * MB, Link(), "0"),  # nobody knows the link
    ],
)
def test_tables_are_read_where_the_image_may_take_so_long(
    layers: list[tuple[int, int | None]], stored_bytes: int, link: Link, read: str
) -> None:
    assert worth_reading(image_of(*layers), stored_bytes, link, WorkCosts()) == set(read)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**8)), min_size=1, max_size=20))
def test_a_slower_link_never_has_fewer_tables_read(layers: list[tuple[int, int]]) -> None:
    links = [Link(0.001, 10.0**power) for power in range(10, 2, -1)]
    read = [worth_reading(image_of(*layers), 10**6, link, WorkCosts()) for link in links]
    assert all(before <= after for before, after in pairwise(read))


# ── what is read off requests ──


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
    assert costs_of({"table byte": 1.0}).table_byte == pytest.approx(3e-4 / 27)
    assert measured([], 100.0, TablesRead(), before) == {}, "nothing came, so nothing was learnt"
    assert measured([], 100.0, TablesRead(1000, 0.1), before) == {}, "too little was read"
    found = measured([], 100.0, TablesRead(4 * MB, 4.0), before)
    assert found == {"table byte": pytest.approx((before.table_byte + 1e-6) / 2)}


def spans_of(count: int, size: int, gap: int) -> list[ByteRange]:
    return [ByteRange(at * (size + gap), at * (size + gap) + size) for at in range(count)]


def test_a_host_that_works_for_each_part_is_asked_for_fewer() -> None:
    """60,000 parts are half a minute of a host that needs 0.5 ms for each.

    They are nothing of one that does not.
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
