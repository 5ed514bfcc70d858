"""Lock blobs between processes: advisory locks on one file, a byte a blob, freed by the system."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zchunked.store.files.disk_errors import local_error

# struct flock of fcntl(2) with 64-bit offsets: type, whence, start, length, pid
_FLOCK = struct.Struct("@hhqqi4x")
_TRY, _WAIT = getattr(fcntl, "F_OFD_SETLK", None), getattr(fcntl, "F_OFD_SETLKW", None)
_SPREAD = (1 << 60) - 1
_TAKEN = (errno.EACCES, errno.EAGAIN)


class BlobLocks:
    """Locks of one open file, shared by the threads of a store; another store competes.

    A shared lock *pins* a blob: its holder may use what the index says of it, and no process
    collects it. A lock that excludes the others is for collecting. Where the system or the file
    system has no such locks, nothing is held and `is_available` is False.
    """

    def __init__(self, path: Path, *, reads_only: bool = False) -> None:
        """`reads_only`: of a read-only store, where a pin needs no more than reading.

        Raises LocalError where the file of another store cannot be opened.
        """
        self._lock = threading.Lock()
        self._held: dict[str, bool] = {}  # whether it excludes others
        self._file = -1
        self.is_available = False
        flags = os.O_RDONLY if reads_only else os.O_RDWR | os.O_CREAT
        try:
            self._file = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if reads_only:
                return
            raise local_error(error, f"cannot use the store's file {path}") from error
        with suppress(OSError):
            if _TRY is not None:
                self._call(_TRY, fcntl.F_RDLCK, "")
                self.is_available = True

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file, self.is_available = -1, False
            self._held.clear()

    def pin(self, name: str) -> None:
        """Wait while another process collects that very blob. The index must be read afterwards."""
        if name in self._held or not self.is_available:
            return
        assert _WAIT is not None
        with suppress(OSError):  # a lock less may cost a download, never a wrong byte
            self._call(_WAIT, fcntl.F_RDLCK, name)
            self._held[name] = False

    def exclude(self, names: Iterable[str]) -> list[str]:
        """Lock the blobs that no other process has pinned, until they are released."""
        got = []
        for name in names:
            try:
                self._call(_TRY or 0, fcntl.F_WRLCK, name)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                continue
            self._held[name] = True
            got.append(name)
        return got

    def pinned_elsewhere(self, names: Iterable[str]) -> list[str]:
        """The blobs that other processes, or other stores of this one, have pinned now."""
        free = self.exclude(each := list(names))
        self.release(free)
        return sorted({*each} - {*free})

    def release(self, names: Iterable[str]) -> None:
        for name in names:
            self._call(_TRY or 0, fcntl.F_UNLCK, name)
            self._held.pop(name, None)

    def _call(self, command: int, kind: int, name: str) -> None:
        fcntl.fcntl(self._file, command, _FLOCK.pack(kind, os.SEEK_SET, _offset(name), 1, 0))


def _offset(name: str) -> int:
    """The first 15 hex digits of a digest. Other names may share a byte, which does no harm."""
    digits = name.partition(":")[2][:15]
    try:
        return int(digits, 16) & _SPREAD
    except ValueError:
        return 0
