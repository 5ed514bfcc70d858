"""Publish to a directory: blobs appear when they are whole, the index is replaced in one step."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zchunked.errors import LimitError, LocalError
from zchunked.export.files.atomic import is_partial, local_errors, sweep, write_whole
from zchunked.export.files.locks import locked_folder
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.local.paths import is_folder, is_there
from zchunked.oci.digest import Digest

_MARKS = ("oci-layout", "index.json")
_BLOBS = "blobs/sha256/"
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hold us


class FolderTarget:
    """A directory as `Target`. Writers take turns, so that none loses another's entries.

    Links below the directory are not followed; the directory itself, which a person named, may be
    behind one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        known: Collection[Digest] = (),
        force: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`known`: blobs that need no hashing. `force`: the directory may hold other things too."""
        self.name = str(folder)
        self._folder, self._known, self._force, self._limits = folder, known, force, limits

    @contextmanager
    def held(self, report: Callable[[str], None]) -> Iterator[None]:
        """LocalError for a directory in which something else lives."""
        wait = lambda: report(f"waiting for another writer to {self.name}")  # noqa: E731
        with ExitStack() as stack:
            with local_errors(f"cannot write {self.name}"):
                stack.enter_context(locked_folder(self._folder, wait))
                may_fill = self._force or is_layout(self._folder)
                if not may_fill and any(
                    not child.name.startswith(".") for child in self._folder.iterdir()
                ):
                    raise taken(self._folder, "OCI layout")
                for folder in (self._folder, self._folder / _BLOBS):
                    sweep(folder)
            yield

    def size_of(self, path: str) -> int | None:
        """A blob that is not what its name says is not there: its size alone proves nothing."""
        with local_errors(f"cannot read {self.name}/{path}"):
            try:
                handle = os.open(self._below(path), _FILE)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno == errno.ELOOP and path.startswith(_BLOBS):
                    return None  # whatever it leads to; `put` replaces it
                raise
            with os.fdopen(handle, "rb") as file:
                found = os.fstat(handle)
                if not stat.S_ISREG(found.st_mode):
                    return None
                if path.startswith(_BLOBS) and (name := path.removeprefix(_BLOBS)):
                    is_known = Digest(f"sha256:{name}") in self._known
                    if not is_known and hashlib.file_digest(file, "sha256").hexdigest() != name:
                        return None
                return found.st_size

    def put(self, path: str, size: int, pieces: Iterable[bytes | memoryview]) -> None:
        with local_errors(f"cannot write {self._folder / path}"):
            place = self._below(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, pieces)

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> None:
        size = self.size_of(path)
        if size is not None and size > self._limits.manifest_bytes:
            raise LimitError(
                f"{self.name}/{path} has {size} bytes, the limit is {self._limits.manifest_bytes}"
            )
        with local_errors(f"cannot read {self.name}/{path}"):
            old = None if size is None else self._below(path).read_bytes()
        if (new := change(old)) != old:
            self.put(path, len(new), [new])

    def close(self) -> None:
        """Nothing is open."""

    def _below(self, path: str) -> Path:
        """Raises LocalError where a folder on the way is a link."""
        place = self._folder
        *folders, name = path.split("/")
        for folder in folders:
            place = place / folder
            if place.is_symlink():
                raise LocalError(
                    f"{place} is a symbolic link, which is not followed; choose another target"
                )
        return place / name


def is_layout(folder: Path) -> bool:
    return any(is_there(folder / mark) for mark in _MARKS)


def is_free(path: Path) -> bool:
    """Whether a new layout may be made here: nothing exists, or a folder of exports."""
    if not is_folder(path):
        return not is_there(path, follow=False)
    return all(is_partial(child) for child in path.iterdir())


def is_filled(path: Path) -> bool:
    """Whether a folder is there that holds more than exports in the making."""
    return is_folder(path) and not is_free(path)


def clear(path: Path) -> None:
    """Remove the file that stands where a folder shall be."""
    if not is_folder(path):
        path.unlink(missing_ok=True)


def may_take(path: Path) -> bool:
    """Whether a layout may be written there: the place is free, or holds a layout by now."""
    # In this order: another process may make the layout between the two questions.
    return is_free(path) or is_layout(path)


def taken(path: Path, what: str) -> LocalError:
    """The error for a place where something else lives."""
    return LocalError(
        f"{path} is there already and is not an {what}; choose another target, or use --force"
    )
