"""What pulls that run side by side share: connections, places on the line, and one end for all."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Protocol


class _Closable(Protocol):
    def close(self) -> None: ...


class IdleConnections:
    """Open connections that nobody uses just now, by what they are good for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Hashable, list[_Closable]] = {}
        self._is_closed = False

    def take(self, key: Hashable) -> _Closable | None:
        """The one that was used last, now the caller's."""
        with self._lock:
            idle = self._idle.get(key)
            return idle.pop() if idle else None

    def put(self, key: Hashable, connection: _Closable) -> None:
        """Keep it for whoever comes next; close it where this has been closed."""
        with self._lock:
            if not self._is_closed:
                self._idle.setdefault(key, []).append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close those that are idle; others close when they are put back."""
        with self._lock:
            self._is_closed = True
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            connection.close()


class SharedLine:
    """For one command that pulls several images. Thread-safe; close it when all have ended."""

    def __init__(self, jobs: int) -> None:
        """`jobs`: connections at a time, of all pulls together."""
        self.jobs = jobs
        self.connections = IdleConnections()
        self.is_over = threading.Event()
        """Set by Ctrl-C: every pull ends as soon as it sees that."""
        self.claimed: set[str] = set()
        """What the pulls of this command have claimed of the store."""
        self._lock = threading.Lock()
        self._busy: set[int] = set()
        self._last: dict[str, Place] = {}
        self._count = 0

    def place(self, repository: str) -> Place:
        """A place for the next pull.

        Pulls of one repository download in turn, as each spares the next bytes.
        """
        with self._lock:
            self._count += 1
            place = self._last[repository] = Place(self, self._count, self._last.get(repository))
            return place

    def close(self) -> None:
        self.is_over.set()
        self.connections.close()

    def share(self) -> int:
        """How many connections each pull may have that downloads just now."""
        with self._lock:
            return max(1, self.jobs // max(1, len(self._busy)))

    def set_busy(self, number: int, *, is_busy: bool) -> None:
        with self._lock:
            (self._busy.add if is_busy else self._busy.discard)(number)


class Place:
    """One pull's. `ended` is to be set when the pull is over, whatever became of it."""

    def __init__(self, line: SharedLine, number: int, before: Place | None) -> None:
        self.line, self._number, self._before = line, number, before
        self.ended = threading.Event()

    def is_next(self, seconds: float) -> bool:
        """Whether the pull of this repository before this one has ended; waits so long for it."""
        if self._before is None or self._before.ended.wait(seconds):
            self._before = None  # or the first would live as long as the last
            return True
        return False

    def set_busy(self, *, is_busy: bool) -> None:
        """Whether the pull has requests under way, or would like to."""
        self.line.set_busy(self._number, is_busy=is_busy)

    def end(self) -> None:
        self.set_busy(is_busy=False)
        self.ended.set()
