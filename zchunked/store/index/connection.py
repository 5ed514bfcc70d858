"""Connection to the store's index: its SQLite file opened or made, its transactions, its errors."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zchunked.errors import LocalError
from zchunked.store.files.disk_errors import index_advice, local_error
from zchunked.store.index import salvage, schema
from zchunked.store.index.open_index import OpenIndex, copy_index, open_index
from zchunked.store.index.rows import NUMBERS


class IndexConnection:
    """Thread-safe: one connection behind one lock. Every method is one transaction."""

    def __init__(self, path: Path, *, reads_only: bool = False) -> None:
        """`reads_only`: a copy in memory, of which whatever is changed is forgotten."""
        self._lock = threading.RLock()
        self._path = path
        self._has_numbers = False
        self.was_older = False
        """Whether a version of zpull made it that knew no shared extents."""
        with self._errors():
            if not reads_only:
                salvage.rebuild_marked(path, lambda new: IndexConnection(new).close())
            self._opened = OpenIndex(copy_index(path)) if reads_only else open_index(path)
            self._db, self.note = self._opened.db, self._opened.note
            try:
                self._db.execute("PRAGMA synchronous=FULL")
                self._create()
            except BaseException:
                self.close()
                raise

    def _create(self) -> None:
        ((version,),) = self.rows("PRAGMA user_version")
        if version in (0, schema.OLDER):
            with self.transaction() as db:
                self.was_older = schema.create(db)
        elif version != schema.VERSION:
            raise LocalError(schema.refusal(version, self._path.parent))
        self.ensure(schema.ADDED)

    def ensure(self, tables: Sequence[str]) -> None:
        """Make those that an older zpull did not; no lock is taken where there are all of them."""
        have = {name for (name,) in self.rows("SELECT name FROM sqlite_master")}
        if lacking := [each for each in tables if schema.name_of(each) not in have]:
            with self.transaction() as db:
                for statement in lacking:
                    db.execute(statement)

    def close(self) -> None:
        with self._lock:
            self._db.close()
            if self._opened.owner is not None:
                self._opened.owner.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if salvage.mark(error, self._path):
                what = f"the store's index {self._path} is damaged ({error})"
                raise LocalError(
                    f"{what}; run the same command again: it is rebuilt then"
                ) from error
            raise LocalError(
                f"the store's index {self._path}: {error}; "
                f"{index_advice(str(error), self._path.parent)}"
            ) from error
        except OSError as error:
            raise local_error(error, f"the store's index {self._path}") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it already
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> list[Any]:
        with self._lock, self._errors():
            return self._db.execute(sql, parameters).fetchall()

    def number_off(self) -> None:
        """Make 0, 1, 2, … a table of this connection: it numbers rows packed in a parameter."""
        with self._lock, self._errors():
            if not self._has_numbers:
                self._db.execute("PRAGMA temp_store=MEMORY")
                self._db.execute("CREATE TEMP TABLE IF NOT EXISTS numbers(n INTEGER PRIMARY KEY)")
                self._db.execute(NUMBERS)
                self._has_numbers = True

    def hints(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        """Rows of a table of `hints`."""
        return self.rows(sql, parameters)

    def set_hint(self, sql: str, parameters: Sequence[object]) -> None:
        """Write without a sync: it survives a kill, perhaps no power loss, and is cheap."""
        with self._lock:
            self._db.execute("PRAGMA synchronous=NORMAL")
            try:
                with self.transaction() as db:
                    db.execute(sql, parameters)
            finally:
                self._db.execute("PRAGMA synchronous=FULL")
