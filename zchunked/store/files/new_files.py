"""Make a whole byte file at once: from pieces, hashed meanwhile, or as a clone of another file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from zchunked.oci.digest import Digest, from_raw
from zchunked.store.files.clone import share
from zchunked.store.files.disk_errors import local_error


def write_file(pieces: Iterable[bytes], path: Path) -> tuple[Digest, int]:
    """Write a file, synced; returns its digest and size. What `pieces` raises leaves no file."""
    hasher, size = hashlib.sha256(), 0
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as out:
            for piece in pieces:
                hasher.update(piece)
                size += out.write(piece)
            out.flush()
            os.fsync(out.fileno())
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise local_error(
                error, f"cannot write to the store at {path.parent.parent}"
            ) from error
        raise
    return from_raw(hasher.digest()), size


def adopt_file(handle: int, size: int, path: Path) -> bool:
    """Clone the file behind `handle`, then close it; False if its size differs or it cannot."""
    try:
        return bool(size) and os.fstat(handle).st_size == size and share(handle, path)
    except OSError as error:
        raise local_error(error, f"cannot write to the store at {path.parent.parent}") from error
    finally:
        os.close(handle)
