"""Layers of an OCI layout to come, written while they are proved: a tar that has passed by need not be made again."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from zchunked.digest import Digest
from zchunked.exports.destination import Destination
from zchunked.exports.files import is_free, partial_folder, partial_name


class Aside:
    """Puts blobs where the export finds them. Whatever fails here is left to the export, which tells. Thread-safe."""

    def __init__(self, folder: Path, *, is_ours: bool) -> None:
        """`is_ours`: the folder is no layout yet, and may go again."""
        self._folder, self._is_ours = folder, is_ours
        self._blobs = folder / "blobs" / "sha256"
        self._lock = threading.Lock()
        self._taken: set[Digest] = set()
        self._kept: list[Path] = []

    @classmethod
    def of(cls, destinations: list[Destination]) -> Aside | None:
        """For the first layout among them, if it can be written to."""
        for to in destinations:
            if to.transport == "oci":
                with suppress(OSError):
                    if (to.path / "index.json").exists():
                        return cls(to.path, is_ours=False)
                    if is_free(to.path):
                        return cls(partial_folder(to.path), is_ours=True)
                return None
        return None

    @contextmanager
    def passing(self, diff_id: Digest, size: int, tar: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
        """The same tar, of `size` bytes or a little more. What passed is kept if the block ends well."""
        path = self._blobs / diff_id[7:]
        file = self._open(diff_id, path, size)
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
                        partial_name(path).replace(path)
                        self._kept.append(path)
        finally:
            with suppress(OSError):
                partial_name(path).unlink(missing_ok=True)

    def _open(self, diff_id: Digest, path: Path, size: int) -> IO[bytes] | None:
        """None where it is there or on its way, and where it might take the room that the store needs."""
        with self._lock:
            if diff_id in self._taken:
                return None
            self._taken.add(diff_id)
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            if path.exists() or shutil.disk_usage(self._blobs).free < 2 * size:
                return None
            return partial_name(path).open("wb", buffering=0)
        except OSError:
            return None

    def drop(self) -> None:
        """The pull has failed: leave nothing behind. The store has it all."""
        with suppress(OSError):
            for path in self._kept:
                path.unlink(missing_ok=True)
            for folder in (self._blobs, self._blobs.parent, *([self._folder] if self._is_ours else [])):
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
