"""Write blobs into a new layout while a pull proves them, from the very bytes that are hashed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from zchunked.errors import LocalError
from zchunked.export.destination import Destination
from zchunked.export.files.atomic import whole_file
from zchunked.export.files.folder import is_free
from zchunked.export.files.stage import Stage
from zchunked.oci.digest import Digest

Through = Callable[[Iterator[bytes]], Iterator[bytes]]
"""Passes blocks on, and keeps a copy of each."""


class ExportTee:
    """The stage of one layout that is not there yet. Blobs may be copied by several threads.

    Read, hashed and written after the pull, the blobs of a cold pull over loopback (352 MB) took
    0.5 s more. A copy that fails is dropped: the export writes that blob, and says what is wrong.
    """

    def __init__(self, target: Path) -> None:
        self.stage = Stage(target)

    @contextmanager
    def copying(self, blob: Digest) -> Iterator[Through]:
        """The copy counts once the block has ended without an exception."""
        copy = _Copy(self.stage, blob)
        try:
            yield copy.through
        except BaseException:
            copy.drop()
            raise
        if copy.finish():
            self.stage.written.add(blob)


def tee_of(to: Destination) -> ExportTee | None:
    """A tee for a destination that is a new layout; None for any other."""
    if to.transport != "oci":
        return None
    with suppress(OSError):
        return ExportTee(to.path) if is_free(to.path) else None
    return None


class _Copy:
    """One blob's file, as long as that can be written."""

    def __init__(self, stage: Stage, blob: Digest) -> None:
        self._open = ExitStack()
        self._file: IO[bytes] | None = None
        with suppress(OSError, LocalError):
            stage.blobs.mkdir(parents=True, exist_ok=True)
            place = stage.blobs / blob.removeprefix("sha256:")
            self._file = self._open.enter_context(whole_file(place))

    def through(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            if self._file is not None:
                try:
                    self._file.write(block)
                except OSError:
                    self.drop()
            yield block

    def finish(self) -> bool:
        """Whether all of it is on the disk, under the blob's name."""
        if self._file is None:
            return False
        try:
            self._open.close()
        except OSError:
            return False
        return True

    def drop(self) -> None:
        """Leave nothing of it."""
        self._file = None
        with suppress(OSError, _DroppedError), self._open.pop_all():
            raise _DroppedError


class _DroppedError(Exception):
    """Ends the block of a file that shall not appear."""
