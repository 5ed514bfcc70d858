"""Files and folders that are absent or complete: written under a partial name, renamed when all is on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from zchunked.errors import LocalError
from zchunked.store.packs import local_error

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


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it gets its name when the block ends well. What a killed run left behind is used again."""
    partial = partial_name(path)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if path.is_dir():
            path.rmdir()  # only an empty one came this far
        partial.replace(path)
    except LocalError:
        raise
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
