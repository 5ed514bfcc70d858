"""Remember what hosts serve, how fast links and this machine are, hashes of seeds: all hints."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from zchunked.errors import LocalError
from zchunked.store.index.database import Index
from zchunked.store.index.rows import batches

_HOST_MEMORY_SECONDS = 7 * 86400.0  # servers change
_NO_RANGES_SECONDS = 3600.0  # a cache that is still filling serves none, and serves them soon after


class Memory:
    """The part of a store that this lives in. Thread-safe."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._hosts_lock = threading.Lock()
        self._hosts: dict[str, int | None] = {}

    def recall(self, host: str) -> int | None:
        """Asked before every request, so the index is asked once."""
        with self._hosts_lock:
            if host in self._hosts:
                return self._hosts[host]
        rows = self._index.hints("SELECT spans, learnt FROM hosts WHERE host = ?", (host,))
        spans, learnt = rows[0] if rows else (0, 0.0)
        lifetime = _HOST_MEMORY_SECONDS if spans else _NO_RANGES_SECONDS
        found = int(spans) if rows and time.time() - learnt <= lifetime else None
        with self._hosts_lock:
            return self._hosts.setdefault(host, found)

    def learn(self, host: str, spans: int) -> None:
        with self._hosts_lock:
            self._hosts[host] = spans
        row = (host, spans, time.time())
        self._index.set_hint("INSERT OR REPLACE INTO hosts VALUES(?, ?, ?)", row)

    def measures(self, subject: str) -> dict[str, float]:
        """What was measured of a host's link or of this machine, as far as it is not too old."""
        sql = "SELECT name, value FROM measures WHERE subject = ? AND learnt >= ?"
        return dict(self._index.hints(sql, (subject, time.time() - _HOST_MEMORY_SECONDS)))

    def remember_measures(self, subject: str, values: dict[str, float]) -> None:
        """Remember measures with today's date; a full disk costs these alone."""
        with suppress(LocalError):
            for name, value in values.items():
                row = (subject, name, value, time.time())
                self._index.set_hint("INSERT OR REPLACE INTO measures VALUES(?, ?, ?, ?)", row)

    def recall_seeds(
        self, inodes: Sequence[int]
    ) -> dict[tuple[int, int, int], tuple[bytes, bytes]]:
        """Remembered (inode, at, size) → (stamp, raw digest) of parts of other local files."""
        found = {}
        for some in batches(inodes):
            sql = (
                "SELECT inode, at, size, stamp, digest FROM seeds WHERE inode IN "
                f"({','.join('?' * len(some))})"
            )
            found.update({tuple(row[:3]): tuple(row[3:]) for row in self._index.rows(sql, some)})
        return found

    def remember_seeds(self, rows: Iterable[tuple[int, int, int, bytes, bytes]]) -> None:
        """(inode, at, size, stamp, raw digest): all numbers below 2**63."""
        with self._index.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO seeds VALUES(?, ?, ?, ?, ?)", rows)
