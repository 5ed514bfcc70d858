"""Write files atomically: under a random partial name, renamed once all is on the disk."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from zchunked.errors import LocalError
from zchunked.export.files.locks import try_lock
from zchunked.store.files.disk_errors import local_error

_PARTIAL = ".zpull-partial"
_RANDOM_BYTES = 8
_KEPT_CHARS = 50  # of a name: file systems take 255 bytes, a character has up to four
_TRIES = 100
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def local_errors(what: str) -> Iterator[None]:
    """The disk's failures as LocalError, with `what` was tried."""
    try:
        yield
    except OSError as error:
        raise local_error(error, what) from error


def partial_name(path: Path) -> Path:
    """A fresh random name beside `path`: the rename is atomic, the name unpredictable."""
    return path.with_name(f"{_prefix(path)}{secrets.token_hex(_RANDOM_BYTES)}{_PARTIAL}")


def partials_of(path: Path) -> list[Path]:
    """Partial files that writers of `path` left or still write; empty if unreadable."""
    prefix = _prefix(path)
    size = len(prefix) + 2 * _RANDOM_BYTES + len(_PARTIAL)
    return [
        one
        for one in _partials_in(path.parent)
        if one.name.startswith(prefix) and len(one.name) == size
    ]


def _partials_in(folder: Path) -> list[Path]:
    with suppress(OSError):
        return [child for child in folder.iterdir() if is_partial(child)]
    return []


def is_partial(path: Path) -> bool:
    """Whether its name is one of `partial_name`'s."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


def _prefix(path: Path) -> str:
    return f".{path.name[:_KEPT_CHARS]}."


@contextmanager
def whole_file(path: Path, *, buffering: int = -1) -> Iterator[IO[bytes]]:
    """A file that appears under its name when the block ends well, and otherwise leaves nothing.

    What stands there already is replaced, a link too. Any number of processes may do this at the
    same time.
    """
    handle, partial = _create(path)
    try:
        with os.fdopen(handle, "wb", buffering) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _create(path: Path) -> tuple[int, Path]:
    """A new partial file, locked: who sweeps sees by the lock that its writer is alive."""
    for _ in range(_TRIES):
        partial = partial_name(path)
        try:
            handle = os.open(partial, _NEW, 0o666)
        except FileExistsError:
            continue
        with suppress(OSError):  # not every file system has locks
            if not (try_lock(handle) and os.fstat(handle).st_nlink):  # swept before it was locked
                os.close(handle)
                continue
        return handle, partial
    raise LocalError(f"{path.parent}: no free name for a partial file in {_TRIES} tries")


def write_whole(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    with whole_file(path) as file:
        for piece in pieces:
            file.write(piece)


def sweep(folder: Path) -> None:
    """Remove partial files of writers that were killed."""
    _drop_idle(_partials_in(folder))


def sweep_beside(path: Path) -> None:
    """Remove what killed writers of `path` left beside it."""
    _drop_idle(partials_of(path))


def _drop_idle(partials: Iterable[Path]) -> None:
    for partial in partials:
        with suppress(OSError):  # without locks it is unknown whether its writer lives
            handle = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if try_lock(handle):
                    partial.unlink()  # fails for a folder, which is not ours to drop
            finally:
                os.close(handle)
