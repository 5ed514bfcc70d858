"""Byte files that only grow, and the marks that let a later process find what a killed one had received.

Every file has a journal beside it, one record per extent, written before the extent's first byte: blob offset and file
offset. The file's length says how far the last extent got, so a kill loses nothing that was written. After a power
loss the page cache is gone and the journal proves nothing: it is believed only within the boot that wrote it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zchunked.digest import Digest, parse_digest
from zchunked.errors import FormatError, LocalError
from zchunked.ranges import ByteRange
from zchunked.store.extents import ExtentMap

_RECORD = struct.Struct("<QQ")  # offset in the blob, offset in the file
_COMMIT_BYTES = 8 << 20
_COMMIT_SECONDS = 1.0
_LIVE, _JOURNAL = ".live", ".map"

Rows = list[tuple[int, int, str, int]]
"""Extents to enter: (start, end, file, at)."""


def local_error(error: OSError, what: str) -> LocalError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LocalError(f"{what}: the disk is full; free some space and run the same command again, nothing is lost")
    return LocalError(f"{what}: {error.strerror or error}")


def boot_id() -> str:
    """Changes with every start of the machine; where the system does not say, no two are equal."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return secrets.token_hex(16)


class Session:
    """This process in the folder of byte files: its name, and a lock that the system drops with the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = secrets.token_hex(6)
        self._lock = os.open(folder / (self.name + _LIVE), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._files = 0

    def close(self) -> None:
        (self.folder / (self.name + _LIVE)).unlink(missing_ok=True)
        os.close(self._lock)

    def next_file(self) -> str:
        self._files += 1
        return f"{self.name}-{self._files}"


class Writer:
    """Appends what arrives of one blob to a file of its own. For one thread; `close` commits.

    `commit` is told the extents to enter once their bytes are on the disk.
    """

    def __init__(
        self, session: Session, file: str, blob: Digest, size: int, extents: ExtentMap,
        commit: Callable[[Digest, int, Rows], None], clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._path = session.folder / file
        self._file, self._blob, self._size = file, blob, size
        self._extents, self._commit, self._clock = extents, commit, clock
        self._at = self._next = 0  # file offset; the blob offset that would continue the extent in progress
        self._fresh: Rows = []  # written and not yet committed
        self._fresh_bytes = 0
        self._since = clock()
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._journal = os.open(self._path.with_name(file + _JOURNAL), flags, 0o600)
            head = json.dumps({"blob": blob, "size": size, "boot": boot_id()}).encode() + b"\n"
            _write(self._journal, head)
            self._data = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise local_error(error, f"cannot write to the store at {session.folder.parent}") from error

    def write(self, position: int, piece: bytes | memoryview) -> list[ByteRange]:
        """Keep what of the piece is not here yet; returns that. The bytes survive a kill from here on."""
        if self._extents.covers(position, position + len(piece)):
            return []
        fresh: list[ByteRange] = []
        try:
            if position != self._next or not self._at:
                _write(self._journal, _RECORD.pack(position, self._at))
            view = memoryview(piece)
            while view:  # a full disk may take a part: what it took is kept
                size = os.write(self._data, view)
                new = self._extents.add(position, position + size, self._file, self._at)
                self._note(new, position)
                fresh += new
                self._at += size
                position += size
                self._next = position
                view = view[size:]
        except OSError as error:
            raise local_error(error, "cannot write to the store") from error
        if self._fresh_bytes >= _COMMIT_BYTES or self._clock() - self._since >= _COMMIT_SECONDS:
            self.commit()
        return fresh

    def _note(self, fresh: list[ByteRange], position: int) -> None:
        if not self._fresh_bytes:
            self._since = self._clock()
        for span in fresh:
            where = self._at + span.start - position
            last = self._fresh[-1] if self._fresh else None
            if last and last[1] == span.start and last[3] + last[1] - last[0] == where:
                self._fresh[-1] = (last[0], span.end, last[2], last[3])
            else:
                self._fresh.append((span.start, span.end, self._file, where))
            self._fresh_bytes += span.size

    def commit(self) -> None:
        """Bytes first, then the rows that claim them."""
        self._since = self._clock()
        if not self._fresh:
            return
        try:
            os.fdatasync(self._data)
        except OSError as error:
            raise local_error(error, "cannot write to the store") from error
        rows, self._fresh, self._fresh_bytes = self._fresh, [], 0
        self._commit(self._blob, self._size, rows)

    def close(self) -> None:
        try:
            self.commit()
        finally:
            os.close(self._data)
            os.close(self._journal)
        self._path.with_name(self._file + _JOURNAL).unlink(missing_ok=True)
        if not self._at:
            self._path.unlink(missing_ok=True)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a process that is gone had received of a blob: bytes on the disk, perhaps without rows."""

    blob: Digest
    size: int
    rows: Rows


def recover(folder: Path) -> Iterator[Leftover]:
    """Read the journals of processes that are gone. Each is removed once the caller has taken what it says."""
    boot = boot_id()
    for journal in sorted(folder.glob("*" + _JOURNAL)):
        file = journal.name.removesuffix(_JOURNAL)
        live = folder / (file.partition("-")[0] + _LIVE)
        if _is_held(live):
            continue
        leftover = _read_journal(journal, folder / file, boot)
        if leftover is not None:
            with (folder / file).open("rb") as data:
                os.fdatasync(data.fileno())
            yield leftover
        journal.unlink(missing_ok=True)
    for live in folder.glob("*" + _LIVE):
        if not _is_held(live):
            live.unlink(missing_ok=True)


def idle_files(folder: Path) -> list[Path]:
    """The byte files of sessions that are gone."""
    live = {path.name.removesuffix(_LIVE) for path in folder.glob("*" + _LIVE) if _is_held(path)}
    files = [path for path in folder.iterdir() if path.suffix not in (_LIVE, _JOURNAL)]
    return [path for path in files if path.name.partition("-")[0] not in live]


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _read_journal(journal: Path, data: Path, boot: str) -> Leftover | None:
    try:
        head, _, body = journal.read_bytes().partition(b"\n")
        length = data.stat().st_size
        told = json.loads(head)
        blob, size = parse_digest(told["blob"]), int(told["size"])
        if told["boot"] != boot:
            return None
    except (OSError, ValueError, KeyError, TypeError, FormatError):
        return None
    records = [_RECORD.unpack_from(body, at) for at in range(0, len(body) - _RECORD.size + 1, _RECORD.size)]
    ends = [at for _, at in records[1:]] + [length]
    rows = [
        (start, start + end - at, data.name, at)
        for (start, at), end in zip(records, ends, strict=True)
        if at < end <= length and start + end - at <= size
    ]
    return Leftover(blob, size, rows) if rows else None
