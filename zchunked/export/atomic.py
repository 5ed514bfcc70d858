"""Files and folders that are absent or complete: written under a partial name, renamed when all is on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from zchunked.errors import LocalError
from zchunked.store.writer import local_error

_PARTIAL = ".zpull-partial"


@contextmanager
def local_errors(what: str) -> Iterator[None]:
    """Our disk's failures in our own words."""
    try:
        yield
    except OSError as error:
        raise local_error(error, what) from error


def partial_name(path: Path) -> Path:
    """Where `path` is written until it is complete: beside it, so that the rename is atomic."""
    return path.with_name(f".{path.name}{_PARTIAL}")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when the block ends well, and leaves nothing when it does not."""
    partial = partial_name(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    with whole_file(path) as file:
        for piece in pieces:
            file.write(piece)


def is_free(path: Path) -> bool:
    """Whether `whole_folder` may take this place: nothing is there, or an empty folder."""
    return not path.exists() or (path.is_dir() and all(child.name == _PARTIAL for child in path.iterdir()))


def partial_folder(path: Path) -> Path:
    """Where a folder is filled until it is complete: within it where it is there already, else beside it."""
    return path / _PARTIAL if path.is_dir() else partial_name(path)


@contextmanager
def whole_folder(path: Path, last: str) -> Iterator[Path]:
    """A folder to fill; it gets its name when the block ends well. What a killed run left behind is used again.

    One that is there already may be where a disk is mounted or a person stands, so it stays and is filled, `last` last.
    """
    is_there = path.is_dir()
    partial = partial_folder(path)
    partial.mkdir(parents=True, exist_ok=True)
    for torn in partial.rglob(f".*{_PARTIAL}"):  # half a file of a run that was killed
        torn.unlink()
    try:
        yield partial
        if is_there:
            for child in sorted(partial.iterdir(), key=lambda child: child.name == last):
                child.replace(path / child.name)
            partial.rmdir()
        else:
            partial.replace(path)
    except LocalError:
        raise
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
