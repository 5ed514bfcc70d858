"""Workers on one bad link.

They back off together, fewer try while it fails, and all are back once it works.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.helpers.build.front import chunked_layer, image, make_tar
from tests.helpers.harness.pulls import open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.download.retries.retry import Chameleon
from zchunked.download.retries.retrying_source import RetryingSource
from zchunked.download.retries.watchdog import Watchdog
from zchunked.errors import MultiRangeRefusedError, TransferError, TransientError
from zchunked.events import Event
from zchunked.interfaces import Pieces
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.options import Patience, StallLimits
from zchunked.ranges import ByteRange
from zchunked.sources.traffic import Traffic

JOBS = 8


class Weather:
    """A clock that moves when somebody sleeps, and a link that is up or down by it."""

    def __init__(self, *outages: tuple[float, float], patience: float = 60) -> None:
        self.now, self.outages = 0.0, outages
        self.lock = threading.Lock()
        self.tries: list[float] = []
        self.events: list[Event] = []
        self.chameleon = Chameleon(
            Patience(patience),
            JOBS,
            self.events.append,
            threading.Event(),
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds

    def attempt(self) -> None:
        with self.lock:
            self.tries.append(self.now)
            is_down = any(start <= self.now < end for start, end in self.outages)
        if is_down:
            raise TransientError("reset")
        self.chameleon.gain(100_000)


def rounds(weather: Weather, count: int) -> list[int]:
    """Step by step, on one thread: all workers that may try do, then the clock moves on.

    Returns how many could.
    """
    chameleon, could = weather.chameleon, []
    for _ in range(count):
        allowed = chameleon._allowed
        could.append(allowed)
        waits = []
        for _ in range(allowed):
            if weather.now < chameleon._not_before:
                break
            try:
                weather.attempt()
                chameleon._allowed = min(JOBS, chameleon._allowed + 1)
            except TransientError as error:
                waits.append(chameleon.forgive(error).wait)
        weather.now = max(
            [weather.now + 0.05, chameleon._not_before, *[weather.now + wait for wait in waits[:1]]]
        )
    return could


def test_parallelism_shrinks_while_the_link_is_down_and_grows_back() -> None:
    weather = Weather((1.0, 25.0))
    could = rounds(weather, 120)
    assert could[0] == JOBS
    assert min(could) == 1
    assert could[-1] == JOBS
    down = [time for time in weather.tries if 1.0 <= time < 25.0]
    assert len(down) < 40, "a few careful tries, not eight workers hammering"


def test_workers_that_fail_together_wait_together() -> None:
    weather = Weather()
    chameleon = weather.chameleon
    decisions = [chameleon.forgive(TransientError("reset")) for _ in range(JOBS)]
    assert not any(decision.is_final for decision in decisions)
    assert chameleon._not_before > 0, "whoever starts now waits too"
    assert len({decision.wait for decision in decisions}) > 1, "with jitter"
    assert max(decision.wait for decision in decisions) <= 0.2, (
        "eight failures at once are one wave"
    )


def test_one_broken_connection_holds_up_nobody_else() -> None:
    weather = Weather()
    weather.chameleon.forgive(TransientError("reset"))
    assert weather.chameleon._not_before <= weather.now
    assert weather.chameleon._allowed == JOBS


def test_one_wish_of_the_server_is_granted_by_all() -> None:
    weather = Weather()
    weather.chameleon.forgive(TransientError("429", retry_after=7))
    weather.chameleon.run(weather.attempt)
    assert weather.tries == [7]


@pytest.mark.parametrize("wish", [0.0, 880e-6, 0.09])
def test_a_wish_for_less_than_our_shortest_wait_makes_no_flood(wish: float) -> None:
    weather = Weather((0, 30))
    with pytest.raises(TransferError):
        Weather((0, 1e9), patience=10).chameleon.run(
            lambda: _raise(TransientError("429", retry_after=wish))
        )
    for _ in range(30):
        decision = weather.chameleon.forgive(TransientError("429", retry_after=wish))
        weather.now += decision.wait
    assert weather.now > 20


def _raise(error: Exception) -> None:
    raise error


def test_real_threads_come_through_an_outage_and_end_up_all_at_work() -> None:
    """Real threads on a made-up clock.

    Whatever the interleaving, everybody finishes and the line is whole again.
    """
    weather = Weather((0.2, 12.0))
    threads = [
        threading.Thread(target=lambda: [weather.chameleon.run(weather.attempt) for _ in range(6)])
        for _ in range(JOBS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert weather.chameleon._allowed == JOBS
    assert weather.chameleon._busy == 0


def test_the_plot_of_the_handbook_is_what_the_code_does() -> None:
    script = Path(__file__).parents[2] / "docs" / "plots" / "tolerance.py"
    done = subprocess.run([sys.executable, script, "--check"], check=False)
    assert done.returncode == 0, f"run {script} again"


# ── hostile company ──


class Fickle:
    """A host that refuses every number of spans, one after the other, without end."""

    def manifest(self, digest: Digest | None) -> None: ...

    def spans_per_request(self, blob: Descriptor) -> int:
        return 50

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        raise MultiRangeRefusedError("not like this")


def test_a_host_that_never_learns_runs_out_of_karma() -> None:
    weather = Weather(patience=5)
    source = RetryingSource(Fickle(), weather.chameleon)  # type: ignore[arg-type]
    blob = Descriptor("", Digest("sha256:" + "0" * 64), 1000)
    with pytest.raises(TransferError, match="not like this"):
        source.fetch(
            blob,
            [ByteRange(0, 1), ByteRange(5, 6)],
            lambda haul: sum(len(piece) for _, piece in haul),
        )
    assert 4 < weather.now < 6


def test_endless_single_bytes_cost_time_but_no_memory(tmp_path: Path) -> None:
    made = image([chunked_layer(make_tar({"a": random.Random(1).randbytes(50_000)}))])
    with open_store(tmp_path) as store:
        pull(MemorySource(made), open_store(tmp_path / "warm"))
        tracemalloc.start()
        try:
            pull(MemorySource(made, piece=1), store)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 6_000_000, "50,000 pieces must not be 50,000 notes"


class Dribble:
    """A traffic of so many body bytes per second, none of them new; karma gains nothing."""

    def __init__(self, rate: float, patience: float = 60, **stall_limits: float) -> None:
        self.now, self.rate, self.traffic = 0.0, rate, Traffic(time.monotonic)
        self.chameleon = Chameleon(
            Patience(patience),
            1,
            lambda _: None,
            threading.Event(),
            clock=lambda: self.now,
            sleep=lambda _: None,
        )
        self.pace = Watchdog(
            StallLimits(**stall_limits), self.traffic, self.chameleon, lambda: self.now
        )

    def until_it_ends(self, limit: float, *, is_fetching: bool = True) -> float:
        left = 0.0
        while self.now < limit:
            self.pace.check(is_fetching=is_fetching)
            self.now += 0.1
            left += self.rate / 10
            self.traffic.received(int(left))
            left -= int(left)
        return self.now


def test_a_server_that_keeps_us_busy_with_nothing_is_left() -> None:
    dribble = Dribble(rate=1)
    with pytest.raises(TransferError, match="nothing useful arrived"):
        dribble.until_it_ends(1000)
    assert 60 <= dribble.now <= 75


def test_a_layer_that_starts_again_on_a_host_without_ranges_is_not_nothing() -> None:
    assert Dribble(rate=50_000).until_it_ends(500) >= 500


def test_a_slow_link_that_brings_something_new_may_go_on() -> None:
    dribble = Dribble(rate=30)
    for _ in range(50):
        dribble.until_it_ends(dribble.now + 10)
        dribble.chameleon.gain(300)


def test_a_minimum_rate_counts_only_while_something_is_fetched() -> None:
    slow = Dribble(rate=1000, min_rate=5000)
    assert slow.until_it_ends(100, is_fetching=False) >= 100, (
        "a proof that takes its time is no trickle"
    )
    with pytest.raises(
        TransferError, match="1000 bytes/s over 10 s is below the minimum rate of 5000"
    ):
        slow.until_it_ends(200)
    assert slow.now < 112
    assert Dribble(rate=6000, min_rate=5000).until_it_ends(100) >= 100


def test_a_deadline_is_one_whatever_comes() -> None:
    fast = Dribble(rate=1e6, deadline=30)
    with pytest.raises(TransferError, match="deadline of 30 s"):
        fast.until_it_ends(100)
    assert 30 <= fast.now < 31
