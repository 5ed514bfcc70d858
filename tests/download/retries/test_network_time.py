"""What counts as waiting for the network, and what a watchdog makes of a slow disk."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.download.retries.network_time import NetworkTime
from zchunked.download.retries.retry import Chameleon
from zchunked.download.retries.watchdog import Watchdog
from zchunked.errors import TransferError
from zchunked.options import Patience, StallLimits
from zchunked.sources.traffic import Traffic


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(0, 8), st.integers(0, 8))
def test_time_runs_by_the_share_of_workers_who_wait(waiting: int, working: int) -> None:
    clock = Clock()
    time = NetworkTime(clock)
    with ExitStack() as stack:
        for _ in range(waiting + working):
            stack.enter_context(time.fetching())
        for _ in range(working):
            stack.enter_context(time.processing())
        clock.now += 10
        assert time() == pytest.approx(10 * waiting / (waiting + working) if working else 10)
    clock.now += 10
    assert time() == pytest.approx(10 + (10 * waiting / (waiting + working) if working else 10))


def test_a_process_that_was_stopped_has_not_waited_all_the_while() -> None:
    clock = Clock()
    time = NetworkTime(clock, longest_step=1)
    for _ in range(10):
        clock.now += 0.1
        time()
    clock.now += 600  # SIGSTOP, or no CPU
    assert time() == pytest.approx(2)


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    clock = Clock()
    time = NetworkTime(clock)
    clock.now -= 50
    assert time() == 0
    clock.now += 1
    assert time() == 1


class Watched:
    def __init__(self, **stall_limits: float) -> None:
        self.clock, self.traffic = Clock(), Traffic(Clock())
        self.chameleon = Chameleon(
            Patience(10), 4, lambda _: None, threading.Event(), clock=self.clock
        )
        self.watchdog = Watchdog(
            StallLimits(**stall_limits), self.traffic, self.chameleon, self.clock
        )

    def go_on(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.now += 1
            self.watchdog.check(is_fetching=True)


def test_a_slow_disk_is_not_below_the_minimum_rate() -> None:
    watched = Watched(min_rate=1000)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(watched.chameleon.time.fetching())
            stack.enter_context(watched.chameleon.local_work())
        watched.go_on(600)
    with (
        watched.chameleon.time.fetching(),
        pytest.raises(TransferError, match="below the minimum rate"),
    ):
        watched.go_on(30)


def test_a_slow_disk_is_not_a_server_that_brings_nothing() -> None:
    watched = Watched()
    with watched.chameleon.time.fetching(), watched.chameleon.local_work():
        watched.go_on(600)
    with watched.chameleon.time.fetching(), pytest.raises(TransferError, match="nothing useful"):
        watched.go_on(60)


def test_a_deadline_is_of_the_wall_clock() -> None:
    watched = Watched(deadline=60)
    with (
        watched.chameleon.local_work(),
        pytest.raises(TransferError, match="the deadline of 60 s has passed"),
    ):
        watched.go_on(90)
