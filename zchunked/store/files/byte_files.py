"""Open and read the store's byte files. An unreadable file is local trouble, not damage."""

from __future__ import annotations

import os
import resource
import stat
import threading
from pathlib import Path

from zchunked.errors import IntegrityError
from zchunked.local.paths import is_missing
from zchunked.store.extents import Piece
from zchunked.store.files.disk_errors import local_error

_MOST_OPEN = 256
_SHARE_OF_LIMIT = 8  # connections, the index and exports want descriptors too


class ByteFiles:
    """Reads byte files; keeps some of them open until `close`. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._handles: dict[str, int] = {}
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(_MOST_OPEN, soft // _SHARE_OF_LIMIT) if soft > 0 else _MOST_OPEN

    def close(self) -> None:
        with self._lock:
            for handle in self._handles.values():
                os.close(handle)
            self._handles.clear()

    def read(self, piece: Piece) -> bytes:
        """Read a piece.

        IntegrityError where the file is missing or too short, LocalError if unreadable.
        """
        handle = self._handles.get(piece.file)
        is_kept = handle is not None
        try:
            if handle is None:
                handle, is_kept = self._open(piece.file)
            try:
                return self._read(handle, piece)
            finally:
                if not is_kept:
                    os.close(handle)
        except OSError as error:
            if is_missing(error):
                raise IntegrityError(
                    f"the store's file {piece.file} is missing: {error.strerror}"
                ) from error
            raise local_error(
                error, f"cannot read the store's file {self._folder / piece.file}"
            ) from error

    def length(self, file: str) -> int:
        """Size in bytes; 0 where there is no such file. LocalError where it is unreadable."""
        try:
            found = (self._folder / file).stat()
        except OSError as error:
            if is_missing(error):
                return 0
            raise local_error(
                error, f"cannot look at the store's file {self._folder / file}"
            ) from error
        return found.st_size if stat.S_ISREG(found.st_mode) else 0

    @staticmethod
    def _read(handle: int, piece: Piece) -> bytes:
        if piece.at < 0 or piece.size < 0:
            raise IntegrityError(f"the store's index lies about its file {piece.file}")
        data = os.pread(handle, piece.size, piece.at)
        while len(data) < piece.size:  # a limit of the system, or a damaged file
            more = os.pread(handle, piece.size - len(data), piece.at + len(data))
            if not more:
                raise IntegrityError(
                    f"the store's file {piece.file} is shorter than its index says"
                )
            data += more
        return data

    def _open(self, file: str) -> tuple[int, bool]:
        """A handle, and whether it is kept."""
        with self._lock:
            if file in self._handles:
                return self._handles[file], True
            handle = os.open(self._folder / file, os.O_RDONLY | os.O_CLOEXEC)
            if len(self._handles) >= self._most:
                return handle, False
            self._handles[file] = handle
            return handle, True
