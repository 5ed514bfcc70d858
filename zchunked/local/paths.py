"""Look at a path of this machine, where absent and unreadable must differ.

`Path.exists`, `is_dir` and `is_file` of Python 3.14, and those of `os.path` always, take what may
not be looked at for absent. These raise OSError then.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})


def is_missing(error: OSError) -> bool:
    """Whether there is no such file. Whatever else stops a read says nothing about the bytes."""
    return error.errno in _MISSING


def is_there(path: Path | str, *, follow: bool = True) -> bool:
    """Whether there is anything; without `follow` a link that leads nowhere counts."""
    return _mode(path, follow=follow) is not None


def is_folder(path: Path | str) -> bool:
    """Whether there is a folder, links followed."""
    return stat.S_ISDIR(_mode(path) or 0)


def is_file(path: Path | str) -> bool:
    """Whether there is a regular file, links followed."""
    return stat.S_ISREG(_mode(path) or 0)


def _mode(path: Path | str, *, follow: bool = True) -> int | None:
    try:
        return os.stat(path, follow_symlinks=follow).st_mode  # noqa: PTH116 - links are not always followed
    except OSError as error:
        if not is_missing(error):
            raise
    except ValueError:  # a NUL in it
        pass
    return None
