"""Count bytes of this day: to clients, and from upstreams. A server started anew counts on."""

from __future__ import annotations

import threading
import time

from zchunked.store import Store

_SUBJECT = "served today"


class Today:
    """Counts since midnight, local time, kept in the store. Thread-safe.

    A server that is killed forgets what it counted since the store was closed last.
    """

    def __init__(self, store: Store) -> None:
        """The store is open."""
        self._store = store
        self._lock = threading.Lock()
        self._day = _today()
        remembered = store.measures(_SUBJECT)
        if remembered.get("day") != self._day:
            remembered = {}
        self._sent = int(remembered.get("sent", 0))
        self._fetched = int(remembered.get("fetched", 0))
        self._is_news = False

    def add(self, *, sent: int = 0, fetched: int = 0) -> None:
        """Body bytes."""
        with self._lock:
            self._turn()
            self._sent += sent
            self._fetched += fetched
            self._is_news = True

    def saved(self, arrived: int) -> int:
        """Bytes that clients got, and no upstream sent. `arrived`: by pulls in progress."""
        with self._lock:
            self._turn()
            return max(self._sent - self._fetched - arrived, 0)

    def remember(self) -> None:
        """Into the store, while it is open."""
        with self._lock:
            if self._is_news:
                counts: dict[str, float] = {
                    "day": self._day,
                    "sent": self._sent,
                    "fetched": self._fetched,
                }
                self._store.remember_measures(_SUBJECT, counts)
                self._is_news = False

    def _turn(self) -> None:
        """Call with the lock."""
        if (day := _today()) != self._day:
            self._day, self._sent, self._fetched = day, 0, 0


def _today() -> int:
    return int(time.strftime("%Y%m%d"))
