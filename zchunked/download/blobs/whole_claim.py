"""Claim a blob whose host serves no ranges: one worker fetches it whole, for all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from zchunked.download.retries.retry import Stopped


class WholeClaim:
    """The claim on one blob of a pull. Thread-safe; it belongs to the thread that made it."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._holder: int | None = None
        self._checks = 0
        self.was_made = False
        """Whether the blob has turned out to come whole or not at all."""

    @property
    def is_taken(self) -> bool:
        return self._holder is not None

    @property
    def is_mine(self) -> bool:
        return self._holder == threading.get_ident()

    def make(self) -> bool | None:
        """True: the caller's from now on. None: it was before. False: it is another worker's."""
        with self._changed:
            if self._holder is not None:
                return None if self.is_mine else False
            self._holder = threading.get_ident()
            self.was_made = True
            return True

    def release(self) -> None:
        with self._changed:
            self._holder = None

    @contextmanager
    def checking(self) -> Iterator[bool]:
        """Hold off the claim while parts are checked; False where another worker has claimed it."""
        with self._changed:
            may = self._holder is None
            self._checks += may
        try:
            yield may
        finally:
            with self._changed:
                self._checks -= may
                self._changed.notify_all()

    def wait_for_checks(self) -> None:
        """Wait until no worker checks parts of it. Raises Stopped when the pull has ended."""
        with self._changed:
            while self._checks:
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(0.2)
