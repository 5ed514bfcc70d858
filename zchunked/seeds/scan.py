"""Find files in a seed: walk a folder, list an archive. Opens only regular files."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from zchunked.store.files.disk_errors import local_error

_MOST_ENTRIES = 5_000_000  # of one folder: a bound on time, far above what images hold
_HEADER_BYTES = 16 << 20  # the most that one header of an archive may make us hold
_BLOCK = 1 << 20
_LARGEST = (1 << 63) - 1  # what the index takes for a number

BROKEN = (
    tarfile.TarError,
    zlib.error,
    OSError,
    ValueError,
    EOFError,
    OverflowError,
    ArithmeticError,
    RecursionError,
)
"""What reading a seed may raise when it is damaged, changes meanwhile, or is out of bounds."""


@dataclass(frozen=True, slots=True)
class Found:
    """`size` bytes at `at` of a regular file.

    `name` is its path below the seed; inode and stamp identify it later.
    """

    path: str
    at: int
    size: int
    name: str
    inode: int
    stamp: bytes

    @property
    def key(self) -> tuple[int, int, int]:
        return self.inode, self.at, self.size


def stamp_of(state: os.stat_result) -> bytes:
    """Changes with everything that writes to a file and does not mean to hide it."""
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}".encode()


def inode_of(state: os.stat_result) -> int:
    return state.st_ino & _LARGEST


def walk(
    root: str,
    may_hold: Callable[[int, str], bool],
    skip: frozenset[tuple[int, int]],
    check: Callable[[], None],
) -> Iterator[Found]:
    """The regular files below a folder, on its file system, each inode once, if readable.

    `may_hold` is asked for each (size, path below the folder); `skip` holds (device, inode) of
    folders to leave out; `check` is called at each folder and may raise.
    """
    left = _MOST_ENTRIES
    linked: set[int] = set()
    device = Path(root).stat().st_dev
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        check()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return
                    name = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        state = entry.stat(follow_symlinks=False)
                        if state.st_dev == device and (state.st_dev, state.st_ino) not in skip:
                            folders.append((entry.path, name + "/"))
                    elif entry.is_file(follow_symlinks=False):
                        found = _found(entry, name, may_hold, linked)
                        if found is not None:
                            yield found
        except OSError:
            continue


def _found(
    entry: os.DirEntry[str], name: str, may_hold: Callable[[int, str], bool], linked: set[int]
) -> Found | None:
    try:
        state = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    if not may_hold(state.st_size, name):
        return None
    if state.st_nlink > 1:
        if state.st_ino in linked:
            return None
        linked.add(state.st_ino)
    return Found(entry.path, 0, state.st_size, name, inode_of(state), stamp_of(state))


def opened(path: str) -> int:
    """A handle on a regular file. OSError for others: a pipe put in its place would block for ever.

    LocalError where this process may open no more files: that says nothing about the seed.
    """
    try:
        handle = os.open(
            path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        )
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise local_error(error, f"cannot read the seed {path!r:.200}") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("no regular file")
    except BaseException:
        os.close(handle)
        raise
    return handle


def read_at(handle: int, at: int, size: int) -> bytes:
    """Fewer bytes only where the file ends."""
    data = os.pread(handle, size, at)
    while len(data) < size and (more := os.pread(handle, size - len(data), at + len(data))):
        data += more
    return data


# ── archives ──


class Forward:
    """A stream that `tarfile` may read as a file: seeking ahead reads and drops."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held, self._at = pieces, b"", 0

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        if to < self._at:
            raise ValueError("a stream does not go back")
        while self._at < to and self.read(min(_BLOCK, to - self._at)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        _check_header(size)
        parts, left = [], size
        while left > 0:
            if not self._held:
                self._held = next(self._pieces, b"")
                if not self._held:
                    break
            parts.append(self._held[:left])
            self._held = self._held[left:]
            left -= len(parts[-1])
        self._at += size - left
        return b"".join(parts)


class Seekable:
    """An open file from `base` on, for `tarfile`, which cannot be led to hold too much."""

    def __init__(self, handle: int, base: int = 0) -> None:
        self._handle, self._base, self._at = handle, base, 0

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        self._at = to
        return to

    def read(self, size: int) -> bytes:
        _check_header(size)
        data = read_at(self._handle, self._base + self._at, size)
        self._at += len(data)
        return data


def _check_header(size: int) -> None:
    if not 0 <= size <= _HEADER_BYTES:
        raise ValueError("a header is too long")


def kind_of(handle: int, at: int = 0) -> Literal["packed", "tar"] | None:
    """Whether a compressed stream or a tar begins there; neither may still be an old tar."""
    head = read_at(handle, at, 512)
    if head[:2] == b"\x1f\x8b" or head[:4] == b"\x28\xb5\x2f\xfd":
        return "packed"
    return "tar" if head[257:262] == b"ustar" else None


def is_layer(name: str) -> bool:
    """Whether a member of an archive may be a layer of a saved image, by its path."""
    return (
        name.startswith("blobs/sha256/")
        or name.endswith("/layer.tar")
        or ("/" not in name and name[-4:] == ".tar")
    )


def members(source: Forward | Seekable) -> Iterator[tuple[str, int, int]]:
    """(path, offset, size) of the regular files of a tar, in order. Raises one of BROKEN."""
    with tarfile.open(fileobj=cast("IO[bytes]", source), mode="r:", errorlevel=0) as tar:
        while (member := tar.next()) is not None:
            if member.isreg() and not member.issparse() and 0 < member.size <= _LARGEST:
                yield member.name.removeprefix("./").strip("/"), member.offset_data, member.size
            cast("Any", tar).members.clear()  # it would keep them all
