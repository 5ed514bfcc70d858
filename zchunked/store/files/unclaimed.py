"""Remove byte files that no row of the index points to, as after a kill."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zchunked.errors import LocalError
from zchunked.local.paths import is_there
from zchunked.store.files.journal import idle_files, journal_of
from zchunked.store.index.database import Index
from zchunked.store.processes.session import Session


def remove_idle(index: Index, folder: Path) -> int:
    """Remove files of sessions that have ended; returns how many."""
    return _remove(index, idle_files(folder))  # listed first: what is claimed by then stays claimed


def remove_own(index: Index, session: Session) -> None:
    """Remove those of this session, at its end. Files with a journal are left for later."""
    paths = [path for path in session.folder.glob(f"{session.name}-*") if not path.suffix]
    with suppress(OSError, LocalError):
        _remove(index, [path for path in paths if not is_there(journal_of(path))])


def _remove(index: Index, paths: Iterable[Path]) -> int:
    by_name = {path.name: path for path in paths}
    return (
        index.remove_unclaimed(by_name, lambda name: by_name[name].unlink(missing_ok=True))
        if by_name
        else 0
    )
