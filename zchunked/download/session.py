"""Session of a transfer: its stop event, events, retries, time limits and workers.

Pulls, single objects, pushes and publishing run under one each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

from zchunked.download.retries.network_time import NetworkTime
from zchunked.download.retries.retry import Chameleon
from zchunked.download.retries.retrying_source import RetryingSource
from zchunked.download.retries.watchdog import Watchdog
from zchunked.download.workers import WorkerPool
from zchunked.errors import InterruptedPullError
from zchunked.events import Event
from zchunked.interfaces import Emit, Source
from zchunked.options import Patience, StallLimits
from zchunked.sources.traffic import Traffic

# seconds between two ticks; more of them and the process had no CPU, or was stopped
_LONGEST_STEP = 1.0
_Result = TypeVar("_Result")


class Session:
    """One transfer. The caller's thread makes it, waits in it, leaves it, and alone sees events.

    `emit` and `stop` are for any thread. The first failure, Ctrl-C and the end set `stop`.
    """

    def __init__(
        self,
        traffic: Traffic,
        *,
        jobs: int,
        patience: Patience,
        stall_limits: StallLimits,
        show: Emit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` in seconds, monotonic: the deadline counts from now."""
        self.traffic, self.jobs, self.show, self.clock = traffic, jobs, show, clock
        self.stop = threading.Event()
        self._events: SimpleQueue[Event] = SimpleQueue()
        self.emit: Emit = self._events.put
        network_time = NetworkTime(clock, _LONGEST_STEP)
        self.chameleon = Chameleon(patience, jobs, self.emit, self.stop, clock=network_time)
        self._watchdog = Watchdog(stall_limits, traffic, self.chameleon, clock)
        self._is_over: Callable[[], bool] = lambda: False
        self._link_share = traffic.link_share
        if self._link_share is not None:
            self.chameleon.share = self._link_share.link.share
            self._is_over = self._link_share.link.is_over.is_set
        self._pool: WorkerPool | None = None
        self.on_tick: Callable[[], None] = lambda: None
        """Called now and then by the thread that waits, until the stop."""
        self.on_stop: Callable[[], None] = lambda: None
        """Called once `stop` is set: wakes the workers that wait for each other."""

    def end_when(self, is_over: Callable[[], bool]) -> None:
        """End as by Ctrl-C once this holds; the thread that waits asks now and then."""
        self._is_over = is_over

    def retrying(self, source: Source) -> RetryingSource:
        """The source with retries; when this session ends it waits for nothing any more."""
        self.traffic.end_when(self.stop.is_set)
        self.traffic.set_listener(self.emit)
        return RetryingSource(source, self.chameleon)

    @contextmanager
    def workers(self, **queues: int) -> Iterator[WorkerPool]:
        """Workers while the block lasts, once. Raises InterruptedPullError for Ctrl-C."""
        pool = self._pool = WorkerPool(queues, self.stop)
        try:
            with pool:
                try:
                    yield pool
                finally:
                    self.stop.set()
                    self.on_stop()
        except KeyboardInterrupt as error:
            raise InterruptedPullError("interrupted") from error
        finally:
            self.stop.set()
            self.traffic.set_listener(None)
            self._show_all()

    @property
    def pool(self) -> WorkerPool:
        """The workers of this session; `workers` has been entered."""
        assert self._pool is not None
        return self._pool

    def wait(self, until: Callable[[], bool] = lambda: False) -> None:
        """Wait until all tasks have ended, showing events; raises the first failure."""
        self.pool.wait(self.tick, until=until)

    def run(self, queue: str, work: Callable[[], _Result]) -> _Result:
        """Have a worker of that queue do the work. Returns and raises what it does."""
        found: list[_Result] = []
        self.pool.submit(queue, lambda: found.append(work()))
        self.wait()
        return found[0]

    def tick(self) -> None:
        """Show events and hold the time limits; call often.

        Raises TransferError when a limit of time has passed, InterruptedPullError when it shall
        end.
        """
        self._show_all()
        is_fetching = self._pool is not None and self._pool.is_busy("fetch")
        if self._link_share is not None:
            self._link_share.set_busy(is_busy=is_fetching)
        if not self.stop.is_set():
            if self._is_over():
                raise InterruptedPullError("interrupted")
            self.on_tick()
            self._watchdog.check(is_fetching=is_fetching)

    def _show_all(self) -> None:
        while not self._events.empty():
            self.show(self._events.get())
