"""Rebuild an index that SQLite finds damaged, from the rows that can still be read.

The process that meets the damage leaves a mark; the next one that is alone rebuilds. Rows prove
nothing, so what was proved is proved again by the next pull, out of the bytes that are there; what
a lost row claimed is downloaded again.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from zchunked.errors import LocalError
from zchunked.local.paths import is_there
from zchunked.store.files.disk_sync import sync_folder
from zchunked.store.processes.session import live_sessions

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_MARK = ".damaged"
_FILE = re.compile(r"[0-9a-f]{12}-\d+", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_TABLES: dict[str, tuple[type, ...]] = {
    "blobs": (int, str, int, int),
    "extents": (int, int, int, str, int),
    "chunks": (bytes, int, int, int, int),
    "refs": (str, str, str, str, float),
}
"""What is worth it, in the order of the columns."""


def mark(error: sqlite3.Error, path: Path) -> bool:
    """Note that the index at `path` is damaged, if the error says so; returns whether."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE or not _has_bytes(
        path.parent / "blobs"
    ):
        return False
    with suppress(OSError):
        path.with_name(path.name + _MARK).touch(mode=0o600)
        return True
    return False


def _has_bytes(blobs: Path) -> bool:
    """Whether the folder is a store's: an index of some other program is left alone."""
    try:
        return any(_FILE.fullmatch(path.name) for path in blobs.iterdir())
    except OSError:
        return False


def rebuild_marked(path: Path, create: Callable[[Path], None]) -> None:
    """Rebuild an index that is noted as damaged. `create` makes an empty one.

    A kill at any moment leaves the note, and the next process begins again. Raises LocalError while
    other processes use the store; OSError, sqlite3.Error where the disk fails.
    """
    if not is_there(path.with_name(path.name + _MARK)):
        return
    if live_sessions(path.parent / "blobs"):
        raise LocalError(
            f"the store's index {path} is damaged; end the other zpull processes, and run it again"
        )
    new = path.with_name("index.new")
    for name in ("", "-wal", "-shm", "-journal"):
        new.with_name(new.name + name).unlink(missing_ok=True)
    create(new)
    with closing(sqlite3.connect(new)) as target:
        for table, types in _TABLES.items():
            marks = ", ".join("?" * len(types))
            target.executemany(
                f"INSERT OR IGNORE INTO {table} VALUES({marks})", _readable(path, table, types)
            )
        target.execute("UPDATE blobs SET whole = 0")
        target.commit()
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        target.execute("PRAGMA journal_mode=DELETE")
    # before the new file is there: SQLite would apply them to it
    for name in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    path.replace(path.with_name("index.broken"))
    new.replace(path)
    sync_folder(path.parent)
    path.with_name(path.name + _MARK).unlink(missing_ok=True)


def _readable(path: Path, table: str, types: tuple[type, ...]) -> Iterator[tuple[Any, ...]]:
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as source:
        source.text_factory = bytes
        for row in source.execute(f"SELECT * FROM {table}"):
            if len(row) == len(types) and (values := _typed(row, types)) is not None:
                yield values


def _typed(row: tuple[Any, ...], types: tuple[type, ...]) -> tuple[Any, ...] | None:
    """A row's values; None for a row that the store never wrote."""
    values: list[Any] = []
    for value, kind in zip(row, types, strict=True):
        if kind is str and isinstance(value, bytes):
            try:
                value = value.decode()  # noqa: PLW2901
            except UnicodeDecodeError:
                return None
        if not isinstance(value, kind) or (isinstance(value, int) and value < 0):
            return None
        values.append(value)
    texts = [value for value in values if isinstance(value, str)]
    shapes = {_TABLES["blobs"]: _DIGEST, _TABLES["extents"]: _FILE}
    return tuple(values) if types not in shapes or shapes[types].fullmatch(texts[0]) else None
