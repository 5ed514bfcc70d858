"""Log of unfinished pulls: `status` shows them, and `gc` keeps their bytes for a while."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange
from zchunked.store.files.journal import in_flight
from zchunked.store.index.database import Index
from zchunked.store.index.rows import stored, unstored
from zchunked.store.processes.session import is_running

_TABLE = """CREATE TABLE IF NOT EXISTS pulls(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, platform TEXT NOT NULL, manifest TEXT NOT NULL,
  session TEXT NOT NULL, process INTEGER NOT NULL, began REAL NOT NULL, had INTEGER NOT NULL)"""
_COLUMNS = "id, name, platform, manifest, session, process, began, had"


class BegunPull(NamedTuple):
    """An unfinished pull.

    `had`: bytes of its layers that were in the store when it began; `began`: seconds since the
    epoch.
    """

    number: int
    name: str
    platform: str
    manifest: str
    session: str
    process: int
    began: float
    had: int


class PullLog:
    """Thread-safe, as the index that it is a part of."""

    def __init__(self, index: Index, folder: Path, session: str) -> None:
        self._index, self._folder, self._session = index, folder, session
        index.ensure([_TABLE])

    def begin(self, name: str, platform: str, manifest: Digest, had: int) -> int:
        """Log a pull; returns the number to finish it by. Replaces abandoned ones of this name."""
        gone = self._gone(name, platform)
        with self._index.transaction() as db:
            db.executemany("DELETE FROM pulls WHERE id = ?", [(one,) for one in gone])
            sql = (
                "INSERT INTO pulls(name, platform, manifest, session, process, began, had) "
                "VALUES(?, ?, ?, ?, ?, ?, ?)"
            )
            row = (stored(name), platform, manifest, self._session, os.getpid(), time.time(), had)
            return int(db.execute(sql, row).lastrowid or 0)

    def finish(self, number: int, name: str, platform: str) -> None:
        """The image is complete: forget this pull and interrupted ones of its name.

        0: none was begun.
        """
        if over := [*([number] if number else []), *self._gone(name, platform)]:
            with self._index.transaction() as db:
                db.executemany("DELETE FROM pulls WHERE id = ?", [(one,) for one in over])

    def _gone(self, name: str, platform: str) -> list[int]:
        rows = [row for row in self.rows() if (row.name, row.platform) == (name, platform)]
        return [row.number for row in rows if not self.is_running(row)]

    def in_flight(self) -> dict[str, list[ByteRange]]:
        """Blob → spans that running processes have received, in the index or not."""
        found: dict[str, list[ByteRange]] = {}
        for leftover in in_flight(self._folder):
            found.setdefault(leftover.blob, []).extend(
                ByteRange(row[0], row[1]) for row in leftover.rows
            )
        return found

    def last_written(self, blob: str) -> float:
        """When a file with bytes of the blob was written to last; 0 where there is none."""
        sql = (
            "SELECT DISTINCT file FROM extents WHERE blob = (SELECT id FROM blobs WHERE digest = ?)"
        )
        latest = 0.0
        for (file,) in self._index.rows(sql, (blob,)):
            with suppress(OSError):
                latest = max(latest, (self._folder / file).stat().st_mtime)
        return latest

    def has_heir(self, number: int, repository: str) -> bool:
        """Whether another process, and not this one, pulls what an interrupted pull has left."""
        rows = [row for row in self.rows() if row.name.startswith(repository)]
        running = {row.number for row in rows if self.is_running(row)}
        left = {row.manifest for row in rows if row.number not in running}
        own = {row.manifest for row in rows if row.number == number}
        others = [row for row in rows if row.number in running and row.session != self._session]
        return not own & left and any(row.manifest in left for row in others)

    def rows(self) -> list[BegunPull]:
        """Oldest first."""
        rows = self._index.rows(f"SELECT {_COLUMNS} FROM pulls ORDER BY id")
        return [BegunPull(number, unstored(name), *rest) for number, name, *rest in rows]

    def is_running(self, row: BegunPull) -> bool:
        """Whether the process that began it still has the store open."""
        return row.session == self._session or is_running(self._folder, row.session)
