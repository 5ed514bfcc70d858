"""Lock files and folders (flock): the system drops the locks with the process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def try_lock(handle: int) -> bool:
    """Whether the lock is ours now, until `handle` is closed.

    OSError without locks on the file system.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_folder(path: Path) -> int:
    """A handle to lock; the caller closes it. Links are not followed."""
    return os.open(path, _FOLDER | os.O_NOFOLLOW)


@contextmanager
def locked_folder(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Make the folder if absent, and lock it. `wait` is called before waiting for another holder.

    Another process may replace an empty folder while this one waits for it, so what was locked is
    compared with what stands there then. Raises OSError.
    """
    while True:
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, _FOLDER)
        try:
            with suppress(OSError):  # not every network file system has locks
                if not try_lock(handle):
                    wait()
                    fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    yield
                    return
        finally:
            os.close(handle)
