"""Close the store while no client needs it, so that a collection beside the server can run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from zchunked.errors import LocalError
from zchunked.maintenance.gc import keep_within
from zchunked.store import Store


class StoreLease:
    """Counts who uses the store. Thread-safe.

    An open store pins every blob that was read or pulled, and keeps its byte files from being
    written anew. So it is closed after some seconds of rest, and opened by the next request.
    """

    def __init__(
        self,
        store: Store,
        seconds: float | None,
        most: int | None,
        before_rest: Callable[[], None] = lambda: None,
    ) -> None:
        """`seconds`: idle time before closing; None: never.

        `most`: bytes the store may weigh; None: any. `before_rest` is called before the store is
        closed.
        """
        self._before_rest = before_rest
        self._store, self._seconds, self._most = store, seconds, most
        self._lock = threading.Lock()
        self._users = 0
        self._last = time.monotonic()
        self._is_open = True

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the store open in the block. LocalError where it cannot be opened any more."""
        with self._lock:
            if not self._is_open:
                self._store.reopen()
                self._is_open = True
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._last = time.monotonic()

    def check(self) -> None:
        """Raises LocalError where the store cannot be opened. No use: it rests as before."""
        with self._lock:
            if not self._is_open:
                self._store.reopen()
                self._store.close()

    def watch(self, stop: threading.Event) -> None:
        """Close the store whenever it rests, until the stop. For a worker."""
        if self._seconds is None:
            return
        while not stop.wait(self._seconds / 2):
            if self._has_closed(self._seconds) and self._most is not None:
                with suppress(LocalError):  # the next rest tries again
                    keep_within(self._store.folder, self._most)
        self._open_again()

    def _has_closed(self, seconds: float) -> bool:
        with self._lock:
            if self._users or not self._is_open or time.monotonic() - self._last < seconds:
                return False
            self._before_rest()
            self._store.close()
            self._is_open = False
            return True

    def _open_again(self) -> None:
        """Open the store once more: its opener closes it."""
        with suppress(LocalError), self.use():
            pass
