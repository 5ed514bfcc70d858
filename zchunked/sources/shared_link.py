"""Share a link between pulls that run side by side: connections, `--jobs`, and one end for all."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Protocol


class _Closable(Protocol):
    def close(self) -> None: ...


class IdleConnections:
    """Idle open connections, by their key. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Hashable, list[_Closable]] = {}
        self._is_closed = False

    def take(self, key: Hashable) -> _Closable | None:
        """The connection that was used last, now the caller's."""
        with self._lock:
            idle = self._idle.get(key)
            return idle.pop() if idle else None

    def put(self, key: Hashable, connection: _Closable) -> None:
        """Keep a connection for the next user; close it if this was closed."""
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


class SharedLink:
    """The link of one command that pulls several images. Thread-safe; close it at the end."""

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
        self._last: dict[str, LinkShare] = {}
        self._count = 0

    def join(self, repository: str) -> LinkShare:
        """The share of the next pull.

        Pulls of one repository download in turn, as each spares the next bytes.
        """
        with self._lock:
            self._count += 1
            link_share = self._last[repository] = LinkShare(
                self, self._count, self._last.get(repository)
            )
            return link_share

    def close(self) -> None:
        self.is_over.set()
        self.connections.close()

    def share(self) -> int:
        """How many connections each pull may have that is downloading."""
        with self._lock:
            return max(1, self.jobs // max(1, len(self._busy)))

    def set_busy(self, number: int, *, is_busy: bool) -> None:
        with self._lock:
            (self._busy.add if is_busy else self._busy.discard)(number)


class LinkShare:
    """One pull's share of the link. Call `end` when the pull is over, however it ended."""

    def __init__(self, link: SharedLink, number: int, before: LinkShare | None) -> None:
        self.link, self._number, self._before = link, number, before
        self.ended = threading.Event()

    def is_next(self, seconds: float) -> bool:
        """Whether the pull of this repository before this one has ended; waits so long for it."""
        if self._before is None or self._before.ended.wait(seconds):
            self._before = None  # or the first would live as long as the last
            return True
        return False

    def set_busy(self, *, is_busy: bool) -> None:
        """Whether the pull has requests under way, or would like to."""
        self.link.set_busy(self._number, is_busy=is_busy)

    def end(self) -> None:
        self.set_busy(is_busy=False)
        self.ended.set()
