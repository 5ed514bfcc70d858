"""Watermark of a blob: how far it has arrived, so that verification streams behind the download."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

from zchunked.download.coalesce import Run
from zchunked.download.retries.retry import Stopped


class Watermark:
    """The offset in a blob below which all planned bytes arrived and were checked. Thread-safe."""

    def __init__(
        self, stop: threading.Event, on_arrival: Callable[[], None] = lambda: None
    ) -> None:
        """`on_arrival`: called by a worker when a run has arrived."""
        self._stop, self._on_arrival = stop, on_arrival
        self._changed = threading.Condition()
        self._runs: list[Run] = []
        self._completed: set[Run] = set()
        self._first_open = 0
        self.mark = math.inf
        """Everything below has arrived. Infinite as long as nothing is expected."""

    def expect(self, runs: Sequence[Run]) -> None:
        with self._changed:
            self._runs, self._completed, self._first_open = list(runs), set(), 0
            self._raise()

    def complete(self, run: Run) -> None:
        with self._changed:
            self._completed.add(run)
            while self._first_open < len(self._runs) and (
                self._runs[self._first_open] in self._completed
            ):
                self._first_open += 1
            self._raise()
        self._on_arrival()

    def complete_all(self) -> None:
        """Nothing more is expected."""
        self.expect(())

    def _raise(self) -> None:
        runs, at = self._runs, self._first_open
        self.mark = runs[at][0].start if at < len(runs) else math.inf
        self._changed.notify_all()

    def wait_for(self, end: int) -> None:
        """Wait until the store has all planned bytes below `end`.

        Raises Stopped when the pull has ended.
        """
        with self._changed:
            while self.mark < end:
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(0.2)

    def wake(self) -> None:
        """Have the threads that wait look whether the pull has ended."""
        with self._changed:
            self._changed.notify_all()
