"""Map an OSError of the local disk: to damaged bytes, or to trouble that says nothing of them."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from zchunked.errors import LocalError

_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
# CIFS, FUSE, and others
_NO_FOLDER_SYNC = frozenset({errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM})
_PAGE_BYTES = 64 << 10  # SQLite grows the memory that its readers share by half of this
_AGAIN = "run the same command again, nothing is lost"
_TOO_MANY = "raise the limit (ulimit -n) or lower --jobs, and " + _AGAIN
_ADVICE = {
    errno.ENOSPC: f"the disk is full; free some space and {_AGAIN}",
    errno.EDQUOT: f"the disk is full: your quota is used up; free some space and {_AGAIN}",
    errno.EEXIST: "it is no folder; name another place with --store",
    errno.EFBIG: f"larger than this process may write; raise the limit (ulimit -f) and {_AGAIN}",
    errno.EROFS: "it is on a read-only file system; name another place with --store",
    errno.EMFILE: "too many open files in this process; " + _TOO_MANY,
    errno.ENFILE: "too many open files on this machine; " + _AGAIN + " when there are fewer",
    errno.EIO: "Input/output error; check the disk",
    errno.ESTALE: "the file server has forgotten the file; check the mount, and " + _AGAIN,
    errno.ENOLCK: "the file system has no locks; name another place with --store",
}


def is_unsupported(error: OSError) -> bool:
    """Whether the file system does not know the operation at all."""
    return error.errno in _UNSUPPORTED


def has_no_locks(error: OSError) -> bool:
    """Whether the file system has no locks of the kind that was asked for."""
    return error.errno == errno.ENOLCK or is_unsupported(error)


def cannot_sync_folders(error: OSError) -> bool:
    """Whether the file system has no way to bring the names of a folder to the disk."""
    return error.errno in _NO_FOLDER_SYNC or is_unsupported(error)


def local_error(error: OSError, what: str) -> LocalError:
    """`what`: what could not be done, and where."""
    return LocalError(f"{what}: {_ADVICE.get(error.errno or 0) or error.strerror or error}")


def is_full(folder: Path) -> bool:
    """Whether the disk has no room for another page of an index."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return False
    return state.f_bavail * state.f_frsize < _PAGE_BYTES


def probe(folder: Path) -> None:
    """Write as the index does, and undo it: this OSError explains SQLite's "disk I/O error"."""
    path = folder / f"probe-{secrets.token_hex(6)}"
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(handle, bytes(_PAGE_BYTES), 0)
        os.fsync(handle)
    finally:
        os.close(handle)
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK)


def index_advice(error: str, folder: Path) -> str:
    """What to do about an SQLite error, by its text; where that says little, by a test write."""
    if "I/O" in error or "unable to open" in error:
        try:
            probe(folder)
        except OSError as true:
            return (
                _ADVICE.get(true.errno or 0)
                or f"{true.strerror}; check the disk, or name another with --store"
            )
        if foreign := [path.name for path in folder.glob("index.sqlite*") if not _is_ours(path)]:
            return (
                f"{foreign[0]} belongs to another user; make the store yours (chown -R {folder}), "
                "or name another place with --store"
            )
    if "full" in error or is_full(folder):
        return f"free some space and {_AGAIN}"
    if "malformed" in error or "not a database" in error:
        return (
            f"it is damaged: move {folder} away, or name another place with --store, and pull again"
        )
    if "readonly" in error or not os.access(folder, os.W_OK):
        return "the store is read-only; name another place with --store"
    if "locked" in error:
        return "another program is writing there; run the same command again when it has ended"
    return "check the disk and its file system, or name another place with --store"
