"""Open an output path: a regular file is replaced whole, anything else is written through."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from zchunked.errors import LocalError
from zchunked.export.files.atomic import local_errors, sweep_beside, whole_file
from zchunked.local.paths import is_file, is_folder, is_there

_MOST_LINKS = 40  # as Linux allows
_DESCRIPTORS = ("/dev/fd", "/proc/self/fd")
_ANYBODYS = stat.S_ISVTX | stat.S_IWOTH
_THROUGH = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC


def descriptor_of(path: Path) -> int | None:
    """The open file of this process that a path names: 3 for /dev/fd/3, also via links."""
    return _followed(path)[1]


def real_path(path: Path) -> Path:
    """Where links lead. Raises LocalError as `open` fails where the system protects links.

    What a stranger put into a folder to which everybody may write leads nowhere.
    """
    return _followed(path)[0]


def _followed(path: Path) -> tuple[Path, int | None]:
    ours = {os.path.realpath(folder) for folder in _DESCRIPTORS} | set(_DESCRIPTORS)
    place = Path(os.path.abspath(path))  # noqa: PTH100 - it keeps links
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(place.parent)
        if folder in ours and place.name.isdecimal() and place.name.isascii():
            return place, int(place.name)
        try:
            link = place.readlink()
        except OSError:
            return place, None
        with local_errors(f"cannot write {path}"):
            above, owner = place.parent.stat(), place.lstat().st_uid
        if above.st_mode & _ANYBODYS == _ANYBODYS and owner not in (os.geteuid(), above.st_uid):
            raise LocalError(
                f"{place} is another user's link in a folder for everybody; choose another target"
            )
        place = Path(folder) / link
    raise LocalError(f"{path}: more than {_MOST_LINKS} links; choose another target")


def is_regular(path: Path) -> bool:
    """Whether what is there, links followed, would be replaced; False also where nothing is."""
    return descriptor_of(path) is None and is_file(real_path(path))


def is_stream(path: Path) -> bool:
    """Whether what is written there cannot be taken back: an open file, a device, a pipe."""
    place, descriptor = _followed(path)
    return descriptor is not None or (
        is_there(place) and not is_file(place) and not is_folder(place)
    )


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The target to write to. A regular file ends whole or unchanged; others are not flushed.

    Raises LocalError for whatever the system says, also when the block writes.
    """
    with local_errors(f"cannot write {path}"):
        place, descriptor = _followed(path)
        if descriptor is not None:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                yield file
                file.flush()
        elif is_stream(place):
            with os.fdopen(os.open(place, _THROUGH), "wb") as file:
                yield file
                file.flush()
        else:
            sweep_beside(place)
            with whole_file(place) as file:
                yield file
