"""Bring bytes, and the names in a folder, to the disk."""

from __future__ import annotations

import os
from pathlib import Path

from zchunked.store.files.disk_errors import cannot_sync_folders, is_unsupported


def sync_data(handle: int) -> None:
    """OSError unless the bytes are on the disk, as far as the file system can say."""
    try:
        os.fdatasync(handle)
    except OSError as error:
        if not is_unsupported(error):
            raise


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder, where the file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if not cannot_sync_folders(error):
            raise
    finally:
        os.close(handle)
