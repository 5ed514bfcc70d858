"""Clock that runs while a worker waits for the network: a slow disk or a busy CPU is no dead
link.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class NetworkTime:
    """A clock that runs the slower the more of the workers on the line are at work on what came.
    Thread-safe.

    While nobody works on what came it keeps the pace of `clock`, while all do it stands still.
    """

    def __init__(self, clock: Callable[[], float], longest_step: float = math.inf) -> None:
        """`longest_step`: no more seconds pass between two looks, for whom looks often: a process
        that was stopped, or had no CPU, could not see what came meanwhile.
        """
        self._clock, self._longest_step = clock, longest_step
        self._lock = threading.Lock()
        self._seen = clock()
        self._passed = 0.0
        self._on_the_line = self._at_work = 0

    def __call__(self) -> float:
        """Seconds since it was made."""
        with self._lock:
            return self._look()

    def _look(self) -> float:
        now = self._clock()
        step, self._seen = min(now - self._seen, self._longest_step), now
        idle = max(0, self._on_the_line - self._at_work)
        self._passed += max(0.0, step) * (idle / (idle + self._at_work) if self._at_work else 1.0)
        return self._passed

    @contextmanager
    def on_the_line(self) -> Iterator[None]:
        """The calling worker asks the network for something."""
        with self._lock:
            self._look()
            self._on_the_line += 1
        try:
            yield
        finally:
            with self._lock:
                self._look()
                self._on_the_line -= 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The calling worker, which is on the line, has received something and keeps it."""
        with self._lock:
            self._look()
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._look()
                self._at_work -= 1
