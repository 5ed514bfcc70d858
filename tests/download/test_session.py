"""One session: its end, its events and its workers, whatever it is for."""

from __future__ import annotations

import threading
import time

import pytest

from tests.helpers.build.front import chunked_layer, image, make_tar
from tests.helpers.servers.memory import MemorySource
from zchunked.download.session import Session
from zchunked.errors import InterruptedPullError, NotFoundError, TransferError
from zchunked.events import Event, Noted
from zchunked.options import Patience, StallLimits
from zchunked.sources.traffic import Traffic


class Bench:
    def __init__(self, **stall_limits: float) -> None:
        self.shown: list[Event] = []
        self.traffic = Traffic(time.monotonic)
        self.now = 0.0
        self.session = Session(
            self.traffic,
            jobs=2,
            patience=Patience(0),
            stall_limits=StallLimits(**stall_limits),
            show=self.shown.append,
            clock=lambda: self.now,
        )


def waits_for(event: threading.Event) -> None:
    event.wait(10)


def test_events_of_workers_are_shown_by_the_thread_that_waits_to_the_last() -> None:
    bench = Bench()
    with bench.session.workers(fetch=1) as pool:
        pool.submit("fetch", lambda: bench.session.emit(Noted("first")))
        bench.session.wait()
        assert bench.shown == [Noted("first")]
        bench.session.emit(Noted("last"))
    assert bench.shown == [Noted("first"), Noted("last")]
    assert bench.session.stop.is_set()


def test_the_first_failure_ends_it_and_wakes_those_who_wait() -> None:
    bench, woken = Bench(), threading.Event()
    bench.session.on_stop = woken.set

    def work() -> int:
        raise NotFoundError("no such thing")

    def run() -> None:
        with bench.session.workers(fetch=1, prove=1) as pool:
            pool.submit("prove", lambda: waits_for(woken))
            bench.session.run("fetch", work)

    with pytest.raises(NotFoundError):
        run()
    assert bench.session.pool.is_gone
    assert woken.is_set()


def test_an_interrupt_is_one_of_ours() -> None:
    bench = Bench()
    with pytest.raises(InterruptedPullError), bench.session.workers(fetch=1):
        raise KeyboardInterrupt
    assert bench.session.stop.is_set()


def test_a_deadline_ends_it_wherever_it_waits() -> None:
    bench = Bench(deadline=5)

    def tick() -> None:
        bench.now += 3

    bench.session.on_tick = tick
    with bench.session.workers(fetch=1) as pool:
        pool.submit("fetch", lambda: waits_for(bench.session.stop))
        with pytest.raises(TransferError, match="deadline of 5 s"):
            bench.session.wait()


def test_a_source_under_a_session_is_told_of_its_end() -> None:
    bench = Bench()
    bench.session.retrying(MemorySource(image([chunked_layer(make_tar({"a": b"a"}))])))
    assert not bench.traffic.has_ended
    with bench.session.workers(fetch=1):
        assert bench.session.run("fetch", lambda: 7) == 7
    assert bench.traffic.has_ended
