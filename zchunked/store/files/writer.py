"""Append-only byte files with journals, from which a later process recovers after a kill.

Every file has a journal beside it, one record per extent, written before the extent's first byte:
blob offset and file offset. The file's length says how far that got, so a kill loses nothing that
was written, and a record of bytes that were not promises nothing. After a power loss the page cache
is gone and the journal proves nothing: it is believed only within the boot that wrote it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from zchunked.errors import LocalError
from zchunked.interfaces import Pieces
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange
from zchunked.store.extents import ExtentMap
from zchunked.store.files.disk_errors import local_error
from zchunked.store.files.disk_sync import sync_data, sync_folder
from zchunked.store.files.journal import RECORD, Rows, head, journal_of

_COMMIT_BYTES = 8 << 20
_COMMIT_SECONDS = 1.0
_MOST_BUFFERS = 1024  # in one system call; POSIX promises fewer, Linux and macOS take these
_CANNOT = "cannot write to the store"


class Writer:
    """Appends what arrives of one blob to its own file. `write` is for one thread; `close` commits.

    `commit` is given the extents to record once their bytes are on the disk. While a disk takes its
    time over that, what arrives lies in the socket, where a kill loses it: so another thread may
    `commit_early`, and `write` rarely has to.
    """

    def __init__(
        self,
        path: Path,
        blob: Digest,
        size: int,
        extents: ExtentMap,
        commit: Callable[[Digest, int, Rows], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`path`: of a file that does not exist. `size` of the blob, in bytes."""
        self._path, self._file = path, path.name
        self._blob, self._size = blob, size
        self._extents, self._commit, self._clock = extents, commit, clock
        # file offset; the blob offset that would continue the extent in progress
        self._at = self._next = 0
        self._fresh: Rows = []  # written and not yet committed
        self._fresh_bytes = 0
        self._since = clock()
        self._lock = threading.Lock()  # of what is fresh
        self._committing = threading.Lock()
        self._is_listed = False  # the folder knows the file, even after a power loss
        # a write broke off, so the journal is ahead of the file: nothing may follow
        self._is_torn = False
        # the disk did not take what was written, and may say otherwise when asked again
        self._is_lost = False
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._journal = os.open(journal_of(path), flags, 0o600)
            _write(self._journal, head(blob, size))
            self._data = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise local_error(
                error, f"cannot write to the store at {path.parent.parent}"
            ) from error

    def write(self, position: int, piece: bytes | memoryview) -> list[ByteRange]:
        """Write one piece, as `write_many`."""
        return self.write_many([(position, piece)])

    def write_many(self, pieces: Pieces) -> list[ByteRange]:
        """Write what the store lacks of the pieces; returns it. It survives a kill from here on.

        All records in one write, then all bytes in another one: parts are small, and each system
        call lets go of the interpreter, which may be a long time coming back.
        """
        here = self._extents.covers_each(
            [(position, position + len(piece)) for position, piece in pieces]
        )
        absent = [one for one, is_here in zip(pieces, here, strict=True) if not is_here]
        if not absent:
            return []
        if self._is_torn:
            raise LocalError(f"{_CANNOT}: an earlier write to the same file broke off")
        rows, records = self._laid_out(absent)
        self._is_torn = True  # until all of it is there
        try:
            _write(self._journal, records)
            fresh = self._append([piece for _, piece in absent], rows)
        except OSError as error:
            raise local_error(error, _CANNOT) from error
        self._next, self._is_torn = rows[-1][1], False
        if self._fresh_bytes >= _COMMIT_BYTES or self._clock() - self._since >= _COMMIT_SECONDS:
            self.commit()
        return [ByteRange(row[0], row[1]) for row in fresh]

    def _laid_out(self, pieces: Pieces) -> tuple[Rows, bytes]:
        """Where the pieces will lie, neighbours as one, and the records that say so."""
        rows: Rows = []
        records: list[bytes] = []
        at, following = self._at, self._next if self._at else -1
        for position, piece in pieces:
            end = position + len(piece)
            if position != following:
                records.append(RECORD.pack(position, at))
            if rows and position == following:
                rows[-1] = (rows[-1][0], end, self._file, rows[-1][3])
            else:
                rows.append((position, end, self._file, at))
            at += len(piece)
            following = end
        return rows, b"".join(records)

    def _append(self, pieces: Sequence[bytes | memoryview], rows: Rows) -> Rows:
        """Write the pieces, which the rows describe; returns what of them is fresh."""
        done, size = 0, sum(map(len, pieces))
        try:
            done = os.writev(self._data, pieces[:_MOST_BUFFERS])
            if done < size:  # more buffers than one call takes, or a disk that is filling up
                rest = memoryview(b"".join(pieces))[done:]
                while rest:
                    step = os.write(self._data, rest)
                    done, rest = done + step, rest[step:]
        finally:  # a full disk may take a part: what it took is kept
            end = self._at + done
            taken = [
                (low, min(high, low + end - at), file, at)
                for low, high, file, at in rows
                if at < end
            ]
            fresh = self._extents.add_many(taken)
            with self._lock:
                self._note(fresh)
            self._at = end
        return fresh

    def _note(self, fresh: Rows) -> None:
        if not self._fresh_bytes:
            self._since = self._clock()
        for row in fresh:
            last = self._fresh[-1] if self._fresh else None
            if last and last[1] == row[0] and last[3] + last[1] - last[0] == row[3]:
                self._fresh[-1] = (last[0], row[1], last[2], last[3])
            else:
                self._fresh.append(row)
            self._fresh_bytes += row[1] - row[0]

    def commit_early(self) -> None:
        """Commit if that is due soon. For any thread; does nothing once the writer is closed."""
        due = (
            self._fresh_bytes >= _COMMIT_BYTES // 2
            or self._clock() - self._since >= _COMMIT_SECONDS / 2
        )
        if due and self._fresh_bytes and self._data >= 0:
            self.commit()

    def commit(self) -> None:
        """Bytes first, then the rows that claim them."""
        with self._committing:
            with self._lock:
                self._since = self._clock()
                rows, self._fresh, self._fresh_bytes = self._fresh, [], 0
            if not rows or self._data < 0:
                return
            if self._is_lost:
                raise LocalError(f"{_CANNOT}: the disk did not take what was written before")
            try:
                self._sync()
                self._commit(self._blob, self._size, rows)
            except BaseException as error:
                # so that `close` fails too, and leaves the journal to the next process
                with self._lock:
                    self._fresh[:0] = rows
                if self._is_lost:
                    for start, end, _, _ in self._extents.still(rows):
                        self._extents.cut(start, end)
                if isinstance(error, OSError):
                    raise local_error(error, _CANNOT) from error
                raise

    def _sync(self) -> None:
        """Sync all bytes.

        After a failure the journal goes, so that no process records uncommitted bytes. A second try
        may succeed and prove nothing: the kernel drops what it could not write.
        """
        try:
            sync_data(self._data)
            if not self._is_listed:
                sync_folder(self._path.parent)
                self._is_listed = True
        except OSError:
            self._is_lost = self._is_torn = True
            with suppress(OSError):
                journal_of(self._path).unlink(missing_ok=True)
            raise

    def close(self) -> None:
        try:
            self.commit()
        finally:
            with self._committing:
                os.close(self._data)
                os.close(self._journal)
                # a late write must fail: the number may be another file's by now
                self._data = self._journal = -1
        journal_of(self._path).unlink(missing_ok=True)
        if not self._at:
            self._path.unlink(missing_ok=True)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
