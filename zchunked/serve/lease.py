"""Let the store go while nobody asks for anything, so that a collection beside the server finds
nothing in use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from zchunked.errors import LocalError
from zchunked.maintenance.gc import keep_within
from zchunked.store import Store


class StoreLease:
    """Counts who uses the store. Thread-safe.

    An open store pins every blob that was read or pulled, and keeps its byte files from being
    written anew. So it is closed after some seconds of rest, and opened by the next request.
    """

    def __init__(self, store: Store, seconds: float | None, most: int | None) -> None:
        """`seconds`: of rest; None keeps the store open. `most`: bytes that it may weigh after
        that, None: no limit.
        """
        self._store, self._seconds, self._most = store, seconds, most
        self._lock = threading.Lock()
        self._users = 0
        self._last = time.monotonic()
        self._is_open = True

    def enter(self) -> None:
        """Until `leave`, the store is open. Raises LocalError where it cannot be opened any
        more.
        """
        with self._lock:
            if not self._is_open:
                self._store.reopen()
                self._is_open = True
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            self._last = time.monotonic()

    @contextmanager
    def use(self) -> Iterator[None]:
        self.enter()
        try:
            yield
        finally:
            self.leave()

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
            self._store.close()
            self._is_open = False
            return True

    def _open_again(self) -> None:
        """Whoever opened it first closes it."""
        with suppress(LocalError):
            self.enter()
            self.leave()


class Leased:
    """A WSGI application whose every answer, to its last byte, uses the store."""

    def __init__(self, app: Callable[..., Iterable[bytes]], lease: StoreLease) -> None:
        self._app, self._lease = app, lease

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self._lease.enter()
        try:
            return _Body(self._app(environ, start_response), self._lease.leave)
        except BaseException:
            self._lease.leave()
            raise


class _Body:
    def __init__(self, pieces: Iterable[bytes], leave: Callable[[], None]) -> None:
        self._pieces, self._leave = pieces, leave
        self._has_left = False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        """The server calls it when the answer has been sent, or the client has left."""
        if self._has_left:
            return
        self._has_left = True
        try:
            if callable(close := getattr(self._pieces, "close", None)):
                close()
        finally:
            self._leave()
