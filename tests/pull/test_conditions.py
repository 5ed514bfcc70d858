"""What a pull counts on: the link as earlier pulls knew it, until this one knows it better."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.build.front import image
from tests.helpers.harness.pulls import AMD64, open_store
from tests.helpers.servers.memory import MemorySource
from zchunked.oci.reference import parse_image
from zchunked.options import Options
from zchunked.pull.origin import Origin
from zchunked.pull.planning.conditions import Conditions
from zchunked.sources.traffic import Traffic
from zchunked.store import Store


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def receive(traffic: Traffic, clock: Clock, seconds: float, rate: float) -> None:
    traffic.begun()
    clock.now += seconds
    traffic.received(int(seconds * rate))
    traffic.ended()


def conditions_of(store: Store, traffic: Traffic) -> Conditions:
    origin = Origin(parse_image("example.com/app:t"), MemorySource(image([])), traffic)
    return Conditions(origin, store, Options(AMD64), lambda _: 1)


def test_the_remembered_rate_counts_until_a_live_one_is_known(tmp_path: Path) -> None:
    clock = Clock()
    traffic = Traffic(clock)
    with open_store(tmp_path) as store:
        store.remember_measures("link example.com", {"rate": 1e8, "round trip": 0.001})
        conditions = conditions_of(store, traffic)
        assert conditions.now().link.rate == 1e8
        # 4 MB, but of a burst: they were buffered on the way
        receive(traffic, clock, 0.005, 8e8)
        assert traffic.is_rate_known
        assert conditions.now().link.rate == 1e8
        receive(traffic, clock, 4.0, 1e6)
        assert conditions.now().link.rate == pytest.approx(2e6, rel=0.01)  # burst and all


def test_a_host_that_nobody_knows_is_judged_by_what_came(tmp_path: Path) -> None:
    clock = Clock()
    traffic = Traffic(clock)
    with open_store(tmp_path) as store:
        conditions = conditions_of(store, traffic)
        assert conditions.now().link.rate is None
        assert not conditions.is_rate_known
        receive(traffic, clock, 0.005, 8e8)
        assert conditions.now().link.rate == pytest.approx(8e8)
        assert conditions.is_rate_known


@pytest.mark.parametrize(("seconds", "kept"), [(0.05, 1e8), (0.5, 2e7)])
def test_a_moment_of_receiving_replaces_no_remembered_rate(
    seconds: float, kept: float, tmp_path: Path
) -> None:
    clock = Clock()
    traffic = Traffic(clock)
    with open_store(tmp_path) as store:
        store.remember_measures("link example.com", {"rate": 1e8, "round trip": 0.001})
        conditions = conditions_of(store, traffic)
        traffic.answered(0.001)
        receive(traffic, clock, seconds, 2e7)
        conditions.remember_link()
        assert store.measures("link example.com")["rate"] == pytest.approx(kept)
