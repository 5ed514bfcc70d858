"""Clone a file without copying: a reflink, or a hard link where that is as good."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from zchunked.store.files.disk_sync import sync_folder

_FICLONE = 0x40049409  # linux/fs.h
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def share(handle: int, path: Path) -> bool:
    """Clone or hard-link `handle` to the new file `path`, synced; False where that is impossible.

    A hard link is made only of a file that is our own and that no other user may write to. Its
    owner could still change it in place, which no tool does to a blob; then proofs and exports
    fail as over a damaged disk, and a pull repairs it. Raises OSError when the disk is full.
    """
    if not (_reflink(handle, path) or _link(handle, path)):
        return False
    sync_folder(path.parent)
    return True


def _reflink(handle: int, path: Path) -> bool:
    ours = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        fcntl.ioctl(ours, _FICLONE, handle)
        os.fsync(ours)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno in _NO_ROOM:
            raise
        return False
    finally:
        os.close(ours)
    return True


def _link(handle: int, path: Path) -> bool:
    found = os.fstat(handle)
    if (
        found.st_uid != os.geteuid()
        or found.st_mode & _WRITABLE_BY_OTHERS
        or not stat.S_ISREG(found.st_mode)
    ):
        return False
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # By its handle: the name might lead elsewhere by now. With a directory handle the link in
        # /proc is followed.
        os.link(f"/proc/self/fd/{handle}", path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(handle)
    except (OSError, NotImplementedError) as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise
        return False
    finally:
        os.close(folder)
    return True
