"""Read the members of a tar in place, as the objects of a layout (`skopeo copy … oci-archive:`).

A compressed archive or a pipe is unpacked into a temporary file first.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

from zchunked.errors import FormatError, LimitError, LocalError, NotFoundError
from zchunked.formats.frames.decompress import unpacked
from zchunked.interfaces import Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.sources.layout import check_size

_STDIN = "-"
_PIECE_BYTES = 1 << 20
SPANS = 512  # reading one more costs a system call
_MOST_LINKS = 16
_WANT = "expected what docker save or skopeo copy writes"
_UNREAD = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_BROKEN = (tarfile.TarError, ValueError, EOFError, OverflowError, ArithmeticError, RecursionError)


Pipe = Callable[[], AbstractContextManager[int]]
"""Begins a tar that a program writes; what that complains of is raised where the block ends."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member's content lies in the tar; or what it links to."""

    start: int = 0
    size: int = 0
    link: str = ""


class TarObjects:
    """Members of a tar as `Objects`. Links between members are followed, none leads out."""

    def __init__(
        self, origin: Path | Pipe, name: str, *, spool: Path | None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """`name`: what messages call it."""
        self.name = name
        self._origin, self._spool, self._limits = origin, spool, limits
        self._lock = threading.Lock()
        self._handle = -1
        self._members: dict[str, Member] | None = None

    def close(self) -> None:
        """Close the archive.

        A thread that waits for more of a pipe is left behind with its open files.
        """
        if self._lock.acquire(blocking=False):
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1
            self._lock.release()

    def get(self, path: str, most: int) -> bytes:
        member = self.find(path)
        if member.size > most:
            raise LimitError(f"{self.name}: {path} has {member.size} bytes, the limit is {most}")
        return b"".join(self.pieces(member, ByteRange(0, member.size)))

    def spans_per_request(self, path: str, blob: Descriptor) -> int:
        return SPANS

    def read(self, path: str, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        member = self.find(path)
        check_size(blob, member.size, self.name)
        for span in spans:
            at = span.start
            for piece in self.pieces(member, span):
                yield [(at, piece)]
                at += len(piece)

    def has(self, path: str) -> bool:
        """NotFoundError where there is no archive."""
        return path in self._opened()

    def find(self, path: str) -> Member:
        """Raises NotFoundError, FormatError for links in circles."""
        members = self._opened()
        name = _clean(path)
        for _ in range(_MOST_LINKS):
            if (member := members.get(name)) is None:
                raise NotFoundError(f"{self.name}: there is no {path} in it")
            if not member.link:
                return member
            name = member.link
        raise FormatError(f"{self.name}: {path} is behind more than {_MOST_LINKS} links")

    def pieces(self, member: Member, span: ByteRange) -> Iterator[bytes]:
        at, end = member.start + span.start, member.start + span.end
        while at < end:
            try:
                piece = os.pread(self._handle, min(_PIECE_BYTES, end - at), at)
            except OSError as error:
                raise LocalError(f"{self.name} cannot be read: {error.strerror}") from error
            if not piece:
                raise FormatError(f"{self.name} ends in the middle of a file; it is cut short")
            yield piece
            at += len(piece)

    def _opened(self) -> dict[str, Member]:
        with self._lock:
            if self._members is None:
                if isinstance(self._origin, Path):
                    self._handle = self._at(self._origin)
                else:
                    with self._origin() as pipe:
                        self._handle = self._copied(pipe)
                self._members = self._listed(self._handle)
            return self._members

    def _at(self, path: Path) -> int:
        try:
            handle = os.dup(0) if str(path) == _STDIN else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.name}: no such file") from error
        except OSError as error:
            raise LocalError(f"{self.name} cannot be read: {error.strerror}") from error
        try:
            return self._seekable(handle)
        except BaseException:
            os.close(handle)
            raise

    def _seekable(self, handle: int) -> int:
        """The same handle where it is a plain tar on a disk, else one on a temporary copy."""
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise NotFoundError(
                f"{self.name} is a folder; expected an archive; for a layout in a folder say "
                "oci:DIR"
            )
        is_file = stat.S_ISREG(found.st_mode)
        if (
            is_file
            and os.lseek(handle, 0, os.SEEK_CUR) == 0
            and os.pread(handle, 257 + 5, 0)[257:] == b"ustar"
        ):
            return handle
        copy = self._copied(handle)
        os.close(handle)
        return copy

    def _copied(self, handle: int) -> int:
        """A temporary file of the archive, unpacked."""
        try:
            with TemporaryFile(dir=self._spool, prefix="archive-") as copy:
                for piece in _tar_only(unpacked(self._raw(handle), self._limits)):
                    copy.write(piece)
                copy.flush()
                return os.dup(copy.fileno())
        except (FormatError, LimitError) as error:
            raise type(error)(f"{self.name}: {error}") from error
        except OSError as error:
            raise LocalError(
                f"{self.name} cannot be unpacked into {self._spool}: {error.strerror}"
            ) from error

    def _raw(self, handle: int) -> Iterator[bytes]:
        is_first = True
        while piece := os.read(handle, _PIECE_BYTES):
            for magic, kind in _UNREAD.items():
                if is_first and piece.startswith(magic):
                    raise FormatError(f"it is compressed with {kind}; unpack it first")
            is_first = False
            yield piece

    def _listed(self, handle: int) -> dict[str, Member]:
        members: dict[str, Member] = {}
        source = _Headers(handle, self._limits.archive_header_bytes)
        try:
            with tarfile.open(fileobj=cast("Any", source), mode="r:") as tar:
                while (found := tar.next()) is not None:
                    cast("Any", tar).members = []  # otherwise it keeps them all
                    if len(members) >= self._limits.archive_members_count:
                        raise LimitError(
                            f"{self.name} has more than {self._limits.archive_members_count} "
                            "members, the limit"
                        )
                    name = _clean(found.name)
                    if found.issym():
                        members[name] = Member(
                            link=_clean(posixpath.join(posixpath.dirname(name), found.linkname))
                        )
                    elif found.islnk():
                        members[name] = Member(link=_clean(found.linkname))
                    elif found.isreg() and not found.issparse():
                        members[name] = Member(found.offset_data, found.size)
        except _BROKEN as error:
            raise FormatError(
                f"{self.name} is not a tar, or cut short ({error}); {_WANT}"
            ) from error
        return members


def _tar_only(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces if they begin as a tar does: others may be large, and are not copied."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= tarfile.BLOCKSIZE:
            break
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise FormatError(f"it is not a tar, nor one in gzip or zstd ({error}); {_WANT}") from error
    yield head
    yield from pieces


def _clean(name: str) -> str:
    """One spelling for each member; what leads out of the archive is a name that none has."""
    return posixpath.normpath(name).lstrip("/")


class _Headers:
    """A file from its beginning, as `tarfile` may read it without being led to hold too much."""

    def __init__(self, handle: int, most: int) -> None:
        self._handle, self._most, self._at = handle, most, 0

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        self._at = position
        return position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._most:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data = os.pread(self._handle, size, self._at)
        self._at += len(data)
        return data
