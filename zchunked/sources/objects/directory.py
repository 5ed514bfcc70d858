"""Objects of a layout in a directory. Links are not followed, so nothing leads out of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zchunked.errors import FormatError, LimitError, LocalError, NotFoundError, TransferError
from zchunked.interfaces import Pieces
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.sources.layout import blob_path, check_size

_PIECE_BYTES = 1 << 20
_SPANS = 512  # reading one more costs a system call
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hold us


class DirectoryObjects:
    """Fills `Objects`, and `Files` for the store. Holds nothing open between calls."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def close(self) -> None:
        """Nothing is open."""

    def get(self, path: str, most: int) -> bytes:
        with self._opened(path) as handle:
            size = os.fstat(handle).st_size
            if size > most:
                raise LimitError(f"{self.name}/{path} has {size} bytes, the limit is {most}")
            return b"".join(self._pieces(path, handle, ByteRange(0, size))) if size else b""

    def spans_per_request(self, path: str, blob: Descriptor) -> int:
        return _SPANS

    def read(self, path: str, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        with self._opened(path) as handle:
            check_size(blob, os.fstat(handle).st_size, self.name)
            for span in spans:
                at = span.start
                for piece in self._pieces(path, handle, span):
                    yield [(at, piece)]
                    at += len(piece)

    def open_blob(self, blob: Descriptor) -> int:
        """As `Files.open_blob`."""
        return self._open(blob_path(blob.digest))

    def _pieces(self, path: str, handle: int, span: ByteRange) -> Iterator[bytes]:
        at = span.start
        while at < span.end:
            try:
                piece = os.pread(handle, min(_PIECE_BYTES, span.end - at), at)
            except OSError as error:
                raise LocalError(f"{self.name}/{path} cannot be read: {error.strerror}") from error
            if not piece:
                raise TransferError(f"{self.name}/{path} became shorter while it was read")
            yield piece
            at += len(piece)

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        handle = self._open(path)
        try:
            yield handle
        finally:
            os.close(handle)

    def _open(self, path: str) -> int:
        """Open a regular file below the folder; the folder itself may be a link."""
        try:
            at = os.open(self._folder, _FOLDER)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(
                f"{self.name}: no such directory; expected an OCI layout, oci:DIR[:tag]"
            ) from error
        except OSError as error:
            raise LocalError(f"{self.name} cannot be read: {error.strerror}") from error
        try:
            *folders, name = path.split("/")
            for folder in folders:
                below = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = below
            handle = os.open(name, _FILE, dir_fd=at)
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.name}: there is no {path} in it") from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise FormatError(
                    f"{self.name}/{path} is behind a symbolic link, which is not followed; copy "
                    "the layout with cp -rL"
                ) from error
            raise LocalError(f"{self.name}/{path} cannot be read: {error.strerror}") from error
        finally:
            os.close(at)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise FormatError(f"{self.name}/{path}: expected a regular file")
        return handle
