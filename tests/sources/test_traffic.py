"""The limit on the rate of all connections together, on a clock of the test's own."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.build.images import Layout
from tests.helpers.servers.registry import Registry
from tests.sources.conftest import BLOB, DATA, Open
from zchunked.ranges import ByteRange
from zchunked.sources.traffic import RateLimit, Traffic


class World:
    now = 100.0

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def limit(self, rate: float) -> RateLimit:
        return RateLimit(rate, clock=lambda: self.now, wait=self.wait)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=50), st.integers(1, 10**7))
def test_bytes_pass_at_the_rate(sizes: list[int], rate: int) -> None:
    world = World()
    traffic = Traffic(lambda: world.now, limit=world.limit(rate))
    for size in sizes:
        traffic.received(size)
    assert world.now - 100 == pytest.approx(max(sum(sizes) / rate, 0), abs=0.25)


def test_an_idle_link_earns_a_quarter_of_a_second_and_no_more() -> None:
    world = World()
    limit = world.limit(1000)
    world.now += 3600
    limit.take(1000)
    assert world.now == pytest.approx(3700.75)


@pytest.mark.parametrize(("rate", "piece"), [(0.1, 1), (80_000, 10_000), (1e9, 896 << 10)])
def test_pieces_are_small_where_the_rate_is(rate: float, piece: int) -> None:
    assert World().limit(rate).piece_bytes == piece


def test_a_read_is_held_to_the_limit_whatever_the_server_sends(
    layout: Layout, open_at: Open
) -> None:
    world = World()
    traffic = Traffic(time.monotonic, limit=world.limit(100_000))
    with Registry(layout) as registry:
        source = open_at(registry, traffic=traffic)
        came = sum(
            len(piece)
            for pieces in source.read(BLOB, [ByteRange(0, len(DATA))])
            for _, piece in pieces
        )
    assert came == len(DATA)
    assert world.now - 100 == pytest.approx(3, abs=0.3)
