"""Open the index's file, even where its file system lacks write access, shared memory or locks.

SQLite's WAL needs memory that processes share, and SQLite takes every failure to lock for another
program that holds the lock. So what the file system can do is found out first, by system calls
whose errors say what is missing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from zchunked.errors import LocalError
from zchunked.local.paths import is_there
from zchunked.store.files.disk_errors import has_no_locks, local_error, probe
from zchunked.store.processes.owner import OwnerFile

_BUSY_SECONDS = 30
_WRITTEN = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "pins", "claims")
_FREE_BYTE = 1 << 60  # of the file `pins`; blobs have those before it
# What SQLite may say where WAL cannot be: the low byte of its extended codes.
_NO_WAL = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
)


class OpenIndex(NamedTuple):
    """An opened index: `owner` excludes other processes and is closed after `db`.

    `note` says what the file system lacks.
    """

    db: sqlite3.Connection
    note: str = ""
    owner: OwnerFile | None = None


def open_index(path: Path) -> OpenIndex:
    """Made where there is none, for its owner's eyes. The caller closes what comes back.

    Raises sqlite3.Error, OSError, and LocalError where another process has a store that cannot be
    shared.
    """
    _make_private(path)
    if not _has_locks(path.parent):
        owner = OwnerFile(path.with_name("index.owner"))
        try:
            db = _connect(f"{path.absolute().as_uri()}?vfs=unix-none", uri=True)
            note = (
                f"the file system of {path.parent} has no locks: only one zpull at a time can "
                "use the store"
            )
            return OpenIndex(_without_wal(db), note, owner)
        except BaseException:
            owner.close()
            raise
    with _in_turns(path.parent):
        db = _connect(path)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            db.close()
            if error.sqlite_errorcode & 0xFF not in _NO_WAL:
                raise
            probe(path.parent)  # a full disk is no reason for another journal
            note = (
                f"the file system of {path.parent} cannot share memory between processes: the "
                "index is slower"
            )
            return OpenIndex(_without_wal(_connect(path)), note)
        except BaseException:
            db.close()
            raise
    return OpenIndex(db)


def copy_index(path: Path) -> sqlite3.Connection:
    """A copy of the index in memory; an empty one where there is none. Blocks no other process."""
    memory = _connect(":memory:")
    try:
        if is_there(path):
            _read_into(memory, path)
    except BaseException:
        memory.close()
        raise
    return memory


def _read_into(memory: sqlite3.Connection, path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    uri = path.absolute().as_uri()
    if _has_locks(path.parent):
        with (
            suppress(sqlite3.OperationalError),
            closing(_connect(f"{uri}?mode=ro", uri=True)) as db,
        ):
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            db.backup(memory)
            return
    if not is_there(log) or not log.stat().st_size:
        with closing(_connect(f"{uri}?immutable=1", uri=True)) as db:
            db.backup(memory)
        return
    # A process was killed, and SQLite wants to write in order to read what it had committed.
    with tempfile.TemporaryDirectory(prefix="zpull-index-") as copies:
        for file in (path, log):
            shutil.copyfile(file, Path(copies, file.name))
        with closing(_connect(Path(copies, path.name))) as db:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.backup(memory)


class _Connection(sqlite3.Connection):
    """A connection that closes when dropped: Python 3.13 warns of one that is still open."""

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it was never opened
            self.close()


def _connect(path: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        uri=uri,
        factory=_Connection,
    )


def _without_wal(db: sqlite3.Connection) -> sqlite3.Connection:
    """Alone, SQLite reads a WAL without shared memory; after that, the file no longer has one."""
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=TRUNCATE")
        db.execute("PRAGMA locking_mode=NORMAL")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # lets go of the lock
    except BaseException:
        db.close()
        raise
    return db


def _make_private(path: Path) -> None:
    """SQLite gives its journals the rights of this file.

    An existing one is not opened: closing it would drop the locks that another connection of this
    process has.
    """
    with suppress(FileExistsError):
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(handle, 0o600)
        finally:
            os.close(handle)


def _has_locks(folder: Path) -> bool:
    """Whether the file system has locks of the kind that SQLite takes (fcntl, POSIX)."""
    try:
        try:
            handle = os.open(folder / "pins", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            handle = os.open(folder / "pins", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # whatever it is, SQLite meets it too
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _FREE_BYTE)
    except OSError as error:
        return not has_no_locks(error)
    finally:
        os.close(handle)
    return True


@contextmanager
def _in_turns(folder: Path) -> Iterator[None]:
    """One process after the other: SQLite fails where two switch a new file to WAL at once."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_folders(folder: Path, blobs: Path) -> None:
    """Raises LocalError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for each in (folder, blobs):
            each.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise local_error(error, f"cannot use the store at {folder}") from error


def read_only(folder: Path) -> LocalError:
    return LocalError(f"the store at {folder} is read-only; name another place with --store")


def unlock(folder: Path) -> None:
    """Make the index and the locks writable where their folders are.

    A backup may bring files back without that right.
    """
    if all(os.access(place, os.W_OK) for place in (folder, folder / "blobs")):
        for name in _WRITTEN:
            if is_there(path := folder / name) and not os.access(path, os.W_OK):
                with suppress(OSError):  # of another user: SQLite will say so
                    path.chmod(0o600)


def is_writable(folder: Path) -> bool:
    """Whether a store can be written to, by names and rights; True where there is none yet."""
    places = (folder, folder / "blobs", folder / "index.sqlite")
    return all(os.access(place, os.W_OK) for place in places if is_there(place))
