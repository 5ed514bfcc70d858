"""A directory to publish to: blobs appear under their names when they are whole, the index is replaced in one step."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zchunked.errors import LimitError, LocalError
from zchunked.export.atomic import local_errors, write_whole
from zchunked.limits import DEFAULT_LIMITS, Limits

_MARKS = ("oci-layout", "index.json")


class FolderTarget:
    """Fills `Target`. Publishers to one directory take turns, so that none loses what another one listed."""

    def __init__(self, folder: Path, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = str(folder)
        self._folder, self._limits = folder, limits

    @contextmanager
    def held(self, tell: Callable[[str], None]) -> Iterator[None]:
        """LocalError for a directory in which something else lives."""
        with local_errors(f"cannot write {self.name}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(OSError):  # not every network file system has locks
                _lock(handle, lambda: tell(f"waiting for another publisher to {self.name}"))
        try:
            is_layout = any((self._folder / mark).exists() for mark in _MARKS)
            if not is_layout and any(not child.name.startswith(".") for child in self._folder.iterdir()):
                raise LocalError(f"{self.name} is there already and is no OCI layout; choose another target")
            yield
        finally:
            os.close(handle)

    def size_of(self, path: str) -> int | None:
        with local_errors(f"cannot read {self.name}/{path}"):
            try:
                return (self._folder / path).stat().st_size
            except FileNotFoundError:
                return None

    def put(self, path: str, size: int, pieces: Iterable[bytes | memoryview]) -> None:
        place = self._folder / path
        with local_errors(f"cannot write {place}"):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, pieces)

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> None:
        size = self.size_of(path)
        if size is not None and size > self._limits.manifest_bytes:
            raise LimitError(f"{self.name}/{path} has {size} bytes, the limit is {self._limits.manifest_bytes}")
        with local_errors(f"cannot read {self.name}/{path}"):
            old = None if size is None else (self._folder / path).read_bytes()
        if (new := change(old)) != old:
            self.put(path, len(new), [new])

    def close(self) -> None:
        """Nothing is open."""


def _lock(handle: int, tell: Callable[[], None]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        tell()
        fcntl.flock(handle, fcntl.LOCK_EX)
