"""Layers of a new OCI layout, written while they are proved: a tar that has passed by need not be made again."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

from zchunked.export.atomic import whole_file
from zchunked.export.destination import Destination
from zchunked.export.folder import is_free
from zchunked.export.stage import Stage
from zchunked.oci.digest import Digest


class ExportTee:
    """Puts blobs where the export finds them. Whatever fails here is left to the export, which tells. Thread-safe."""

    def __init__(self, stage: Stage) -> None:
        """`stage`: where the layout is made until it is complete; the export gets it afterwards, or `drop` ends it."""
        self.stage = stage
        self._lock = threading.Lock()
        self._taken: set[Digest] = set()

    @classmethod
    def of(cls, destinations: list[Destination]) -> ExportTee | None:
        """For the first layout among them, if it is a new one: what is in others, their readers and writers share."""
        for to in destinations:
            if to.transport == "oci":
                with suppress(OSError):
                    return cls(Stage(to.path)) if is_free(to.path) else None
                return None
        return None

    @contextmanager
    def passing(self, diff_id: Digest, size: int, tar: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
        """The same tar, of `size` bytes or a little more. What passed is kept if the block ends well."""
        is_over = False
        try:
            with ExitStack() as stack:
                file = self._open(diff_id, size, stack)
                if file is None:
                    yield tar
                    return
                copy = _Copy(file)
                yield copy.of(tar)
                is_over = True
                if not copy.is_complete:
                    raise _GivenUpError  # so that nothing is left of it
            self.stage.written.add(diff_id)
        except (OSError, _GivenUpError):
            if not is_over:
                raise

    def _open(self, diff_id: Digest, size: int, stack: ExitStack) -> IO[bytes] | None:
        """None where it is there or on its way, and where it might take the room that the store needs."""
        with self._lock:
            if diff_id in self._taken:
                return None
            self._taken.add(diff_id)
        try:
            blobs = self.stage.blobs
            blobs.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(blobs).free < 2 * size:
                return None
            return stack.enter_context(whole_file(blobs / diff_id[7:], buffering=0))
        except OSError:
            return None

    def drop(self) -> None:
        """The pull has failed: leave nothing behind. The store has it all."""
        self.stage.drop()


class _GivenUpError(Exception):
    """The copy failed; the tar went on."""


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
