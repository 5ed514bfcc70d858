"""Clock that stands still while workers use the disk or the CPU: only the link counts."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class NetworkTime:
    """A clock that runs the slower the more workers process what they received. Thread-safe.

    While none does, it runs like `clock`; while all do, it stands still.
    """

    def __init__(self, clock: Callable[[], float], longest_step: float = math.inf) -> None:
        """`longest_step`: at most so many seconds pass between two calls.

        A process that was stopped, or had no CPU, could not see what arrived meanwhile.
        """
        self._clock, self._longest_step = clock, longest_step
        self._lock = threading.Lock()
        self._seen = clock()
        self._passed = 0.0
        self._fetching = self._processing = 0

    def __call__(self) -> float:
        """Seconds since it was made."""
        with self._lock:
            return self._look()

    def _look(self) -> float:
        now = self._clock()
        step, self._seen = min(now - self._seen, self._longest_step), now
        idle = max(0, self._fetching - self._processing)
        self._passed += max(0.0, step) * (
            idle / (idle + self._processing) if self._processing else 1.0
        )
        return self._passed

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """The calling worker asks the network for something."""
        with self._lock:
            self._look()
            self._fetching += 1
        try:
            yield
        finally:
            with self._lock:
                self._look()
                self._fetching -= 1

    @contextmanager
    def processing(self) -> Iterator[None]:
        """The calling worker, which is fetching, stores what it received."""
        with self._lock:
            self._look()
            self._processing += 1
        try:
            yield
        finally:
            with self._lock:
                self._look()
                self._processing -= 1
