"""Layers of a new OCI layout, written while they are proved: a tar that has passed by need not be made again."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from zchunked.export.atomic import is_free, partial_folder, partial_name
from zchunked.export.destination import Destination
from zchunked.oci.digest import Digest


class ExportTee:
    """Puts blobs where the export finds them. Whatever fails here is left to the export, which tells. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the layout is made until it is complete."""
        self._folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._lock = threading.Lock()
        self._taken: set[Digest] = set()
        self._kept: list[Path] = []

    @classmethod
    def of(cls, destinations: list[Destination]) -> ExportTee | None:
        """For the first layout among them, if it is a new one: what is in others, their readers and writers share."""
        for to in destinations:
            if to.transport == "oci":
                with suppress(OSError):
                    return cls(partial_folder(to.path)) if is_free(to.path) else None
                return None
        return None

    @contextmanager
    def passing(self, diff_id: Digest, size: int, tar: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
        """The same tar, of `size` bytes or a little more. What passed is kept if the block ends well."""
        path = self._blobs / diff_id[7:]
        partial = partial_name(self._blobs / f"{diff_id[7:]}.{os.getpid()}")  # nobody else's, whoever writes there
        file = self._open(diff_id, path, partial, size)
        if file is None:
            yield tar
            return
        copy = _Copy(file)
        try:
            with file:
                yield copy.of(tar)
                if copy.is_complete:
                    with suppress(OSError):
                        file.flush()
                        os.fsync(file.fileno())
                        partial.replace(path)
                        self._kept.append(path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _open(self, diff_id: Digest, path: Path, partial: Path, size: int) -> IO[bytes] | None:
        """None where it is there or on its way, and where it might take the room that the store needs."""
        with self._lock:
            if diff_id in self._taken:
                return None
            self._taken.add(diff_id)
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            if path.exists() or shutil.disk_usage(self._blobs).free < 2 * size:
                return None
            return partial.open("wb", buffering=0)
        except OSError:
            return None

    def drop(self) -> None:
        """The pull has failed: leave nothing behind. The store has it all."""
        with suppress(OSError):
            for path in self._kept:
                path.unlink(missing_ok=True)
            for folder in (self._blobs, self._blobs.parent, self._folder):
                folder.rmdir()  # if it is empty


class _Copy:
    """What passes is written, until that fails."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.is_complete = True

    def of(self, tar: Iterator[bytes]) -> Iterator[bytes]:
        for block in tar:
            if self.is_complete:
                self._write(block)
            yield block

    def _write(self, block: bytes) -> None:
        try:
            left = memoryview(block)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self.is_complete = False
            with suppress(OSError):
                self._file.truncate(0)
