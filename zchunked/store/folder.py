"""Open and close a store's folder: its index, the session of this process, the locks of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from zchunked.errors import LocalError
from zchunked.store.files.disk_errors import local_error
from zchunked.store.files.unclaimed import remove_idle, remove_own
from zchunked.store.hints import Hints
from zchunked.store.index.database import Index
from zchunked.store.index.frame_index import FrameIndex
from zchunked.store.index.open_index import is_writable, make_folders, read_only, unlock
from zchunked.store.link_memory import Memory
from zchunked.store.processes.locks import BlobLocks
from zchunked.store.processes.pulls import PullLog
from zchunked.store.processes.session import NoSession, Session

if TYPE_CHECKING:
    from zchunked.store.index.collector import Collector


class OpenedFolder(Memory):
    """The part of a store that owns its files, and closes them."""

    def __init__(self, folder: Path, *, reads_only: bool = False) -> None:
        """`reads_only`, or a read-only folder: nothing is written, no forgetting is saved."""
        self.folder, self._blobs = folder, folder / "blobs"
        if not reads_only:
            unlock(folder)
        self.is_read_only = reads_only or not is_writable(folder)
        if not self.is_read_only:
            make_folders(folder, self._blobs)
        super().__init__(Index(folder / "index.sqlite", reads_only=self.is_read_only))
        self.note = self._index.note  # what its file system lacks, for people
        self.hints = Hints(self._index)
        self.frames = FrameIndex(self._index)  # which blobs hold the frame of a key
        self._has_dropped = False  # something that this session may have written
        try:
            self._locks = BlobLocks(folder / "pins", reads_only=self.is_read_only)
            self._session = NoSession(self._blobs) if self.is_read_only else Session(self._blobs)
            self.catch_up()
            self.pulls = PullLog(self._index, self._blobs, self._session.name)
        except LocalError:
            self._index.close()
            raise
        except OSError as error:
            self._index.close()
            raise local_error(error, f"cannot use the store at {folder}") from error

    def catch_up(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        if self._has_dropped and not self.is_read_only:
            remove_own(self._index, self._session)
        for part in (self._index, self._session, self._locks):
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def collector(self) -> Collector:
        """The collector of a store that was opened for nothing else."""
        if self.is_read_only:
            raise read_only(self.folder)
        from zchunked.store.index.collector import Collector  # noqa: PLC0415 - few commands collect

        return Collector(self._index, self._blobs, self._locks, self._session, self.pulls)

    def drop_unclaimed(self) -> int:
        """Remove byte files that no extent points to and no process writes; returns how many."""
        return 0 if self.is_read_only else remove_idle(self._index, self._blobs)
