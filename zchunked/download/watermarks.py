"""Per-blob watermarks, so that verification streams behind the download."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from zchunked.download.coalesce import Run
from zchunked.download.retry import Stopped
from zchunked.oci.digest import Digest


class Watermarks:
    """The offset in each blob below which all planned bytes arrived and were checked.

    Thread-safe.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._runs: dict[Digest, list[Run]] = {}
        self._completed: dict[Digest, set[Run]] = {}
        self._first_open: dict[Digest, int] = {}
        self._marks: dict[Digest, float] = {}  # everything below has arrived; read without the lock

    def expect(self, blob: Digest, runs: Sequence[Run]) -> None:
        with self._changed:
            self._runs[blob], self._completed[blob], self._first_open[blob] = list(runs), set(), 0
            self._mark(blob)

    def complete(self, blob: Digest, run: Run) -> None:
        with self._changed:
            runs, completed, at = self._runs[blob], self._completed[blob], self._first_open[blob]
            completed.add(run)
            while at < len(runs) and runs[at] in completed:
                at += 1
            self._first_open[blob] = at
            self._mark(blob)

    def _mark(self, blob: Digest) -> None:
        runs, at = self._runs[blob], self._first_open[blob]
        self._marks[blob] = runs[at][0].start if at < len(runs) else math.inf
        self._changed.notify_all()

    def complete_all(self, blob: Digest) -> None:
        """Nothing more is expected of this blob."""
        self.expect(blob, ())

    def wait_for(self, blob: Digest, end: int) -> None:
        """Wait until the store has all planned bytes of the blob below `end`.

        Raises Stopped when the pull has ended.
        """
        if self._marks.get(blob, math.inf) >= end:
            return
        with self._changed:
            while self._marks[blob] < end:
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(0.2)

    def wake(self) -> None:
        """Have the threads that wait look whether the pull has ended."""
        with self._changed:
            self._changed.notify_all()
