"""Sessions of processes that write to a store: a name, and a lock that tells whether one runs."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zchunked.local.paths import is_there
from zchunked.store.files.disk_errors import has_no_locks
from zchunked.store.index.open_index import read_only
from zchunked.store.processes import owner

LIVE = ".live"


class Session:
    """This process in the folder of byte files: its name, and a lock that ends with the process.

    Where the file system has no such locks, the mark says who holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = secrets.token_hex(6)
        self._lock = self._locked(folder / (self.name + LIVE))
        self.files = 0
        """How many were begun."""

    @staticmethod
    def _locked(path: Path) -> int:
        while True:
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:
                if has_no_locks(error):
                    os.write(handle, owner.mark())
                    return handle
                os.close(handle)
                raise
            if is_there(path) and path.stat().st_ino == os.fstat(handle).st_ino:
                return handle
            os.close(handle)  # another process took it for a dead one's before we had the lock

    def close(self) -> None:
        (self.folder / (self.name + LIVE)).unlink(missing_ok=True)
        os.close(self._lock)

    def next_file(self) -> str:
        self.files += 1
        return f"{self.name}-{self.files}"

    def has_begun(self, file: str, since: int) -> bool:
        """Whether the file is this session's, and was begun when it had begun so many others."""
        name, _, number = file.partition("-")
        return name == self.name and int(number) > since


class NoSession(Session):
    """Stands in for the session of a store that is only read: it begins no file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name, self.files = folder, "", 0

    def close(self) -> None:
        pass

    def next_file(self) -> str:
        raise read_only(self.folder.parent)


@contextmanager
def gone(live: Path) -> Iterator[bool]:
    """Whether the session of this mark has ended; if so the mark is ours until the block ends."""
    try:
        handle = os.open(live, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    except OSError:  # it is unknown
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have removed what we opened, and a starting one put its own there
        # since.
        is_gone = os.path.samestat(os.fstat(handle), live.stat())
    except OSError as error:
        is_gone = has_no_locks(error) and owner.has_ended(os.pread(handle, owner.MARK_BYTES, 0))
    try:
        yield is_gone
    finally:
        os.close(handle)


def live_sessions(folder: Path) -> list[str]:
    """Sessions of processes that have the store open now."""
    return [live.name.removesuffix(LIVE) for live in folder.glob("*" + LIVE) if is_held(live)]


def is_running(folder: Path, session: str) -> bool:
    """Whether the process of that session still lives."""
    return is_held(folder / (session + LIVE))


def is_held(live: Path) -> bool:
    with gone(live) as is_gone:
        return not is_gone
