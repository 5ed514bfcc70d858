"""Open the store for a command, and say what its file system lacks."""

from __future__ import annotations

from pathlib import Path

from zchunked.cli.render import print_warning
from zchunked.store import Store


def open_store(folder: Path, *, reads_only: bool = False) -> Store:
    """Open a store; the caller closes it. `reads_only`: for a command that changes nothing."""
    store = Store(folder, reads_only=reads_only)
    if store.note:
        print_warning(store.note)
    return store
