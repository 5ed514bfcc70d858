"""Find and remove what `gc` may drop: rows and files, in transactions of the index."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from zchunked.errors import LocalError
from zchunked.findings import Image
from zchunked.store.files.disk_errors import local_error
from zchunked.store.files.disk_sync import sync_folder
from zchunked.store.files.journal import idle_files
from zchunked.store.index import places
from zchunked.store.index.database import Index
from zchunked.store.index.forget import Drop, forget_blobs
from zchunked.store.index.rows import stored
from zchunked.store.processes.locks import BlobLocks
from zchunked.store.processes.pulls import BegunPull, PullLog
from zchunked.store.processes.session import Session

_COPY_BYTES = 1 << 20
_SPARE_SHARE = 4  # the index is written anew when more than a fourth of its pages are free
_SPARE_PAGES = 64


FileRow = tuple[str, int, int, str, int]
"""(file, at, end, blob, start): bytes [at, end) of a file are bytes of a blob from `start` on."""


class Collector:
    """Collects in a store that is opened for nothing else: its own pins are given up."""

    def __init__(
        self, index: Index, folder: Path, locks: BlobLocks, session: Session, pulls: PullLog
    ) -> None:
        self._index, self._folder, self._locks, self._session = index, folder, locks, session
        self.pulls = pulls

    # ── what there is ──

    def holders(self) -> tuple[list[Image], list[BegunPull]]:
        """Names, newest first; pulls that were begun and not finished."""
        return self._index.images(), self.pulls.rows()

    def file_rows(self) -> Sequence[FileRow]:
        """All extents, by file and place in it."""
        sql = (
            "SELECT file, at, at + length, digest, start FROM extents JOIN blobs ON blobs.id = "
            "blob ORDER BY file, at"
        )
        return self._index.rows(sql)

    def weights(self) -> dict[str, int]:
        """Bytes of each blob that are here; where extents overlap they count twice."""
        sql = "SELECT digest, sum(length) FROM extents JOIN blobs ON blobs.id = blob GROUP BY blob"
        return dict(self._index.rows(sql))

    def rests(self) -> dict[tuple[str, str], set[str]]:
        """(layer, diff ID) → the blobs whose chunks its proof took."""
        found: dict[tuple[str, str], set[str]] = {}
        for layer, diff_id, blob in self._index.rows("SELECT layer, diff_id, blob FROM rests"):
            found.setdefault((layer, diff_id), set()).add(blob)
        return found

    def proved(self) -> set[str]:
        """Layers that were proved by a diff ID."""
        return {str(digest) for (digest,) in self._index.rows("SELECT DISTINCT digest FROM layers")}

    def pinned(self) -> set[str]:
        """Blobs that running processes use."""
        if not self._locks.is_available:
            raise LocalError(
                f"cannot collect garbage in {self._folder.parent}: its file system has no locks "
                "(fcntl(2)), so what other processes use is unknown; use a store on a local disk"
            )
        names = [str(digest) for (digest,) in self._index.rows("SELECT digest FROM blobs")]
        return set(self._locks.pinned_elsewhere(names))

    def busy_files(self) -> set[str]:
        """Byte files that a running process may be writing."""
        idle = {path.name for path in idle_files(self._folder)}
        return {name for name in self.file_sizes() if name not in idle}

    def file_sizes(self) -> dict[str, int]:
        """Bytes of each byte file."""
        sizes = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if "." not in entry.name:
                    with suppress(FileNotFoundError):
                        sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        return sizes

    def disk_bytes(self) -> int:
        """All files of the store, the index too."""
        found = 0
        for folder in (self._folder, self._folder.parent):
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        if entry.is_file(follow_symlinks=False):
                            found += entry.stat(follow_symlinks=False).st_size
        return found

    # ── rows go ──

    def forget(self, drop: Drop, refs: list[Image], pulls: list[BegunPull]) -> bool:
        """Forget these rows; False, unchanged, when `refs` or `pulls` changed or blobs are used."""
        blobs = [*drop.blobs, *drop.trimmed]
        got = self._locks.exclude(blobs)
        try:
            if len(got) < len(blobs):
                return False
            with self._index.transaction() as db:
                if self.holders() != (refs, pulls):
                    return False
                if blobs:
                    forget_blobs(db, drop, blobs)
                db.executemany(
                    "DELETE FROM refs WHERE name = ? AND platform = ?",
                    [(stored(ref.name), ref.platform) for ref in drop.refs],
                )
                db.executemany(
                    "DELETE FROM pulls WHERE id = ?", [(number,) for number in drop.pulls]
                )
            return True
        finally:
            self._locks.release(got)

    def forget_names(self, names: Iterable[tuple[str, str]]) -> None:
        """Names of images, by name and platform. Their bytes stay until they are collected."""
        with self._index.transaction() as db:
            rows = [(stored(name), platform) for name, platform in names]
            db.executemany("DELETE FROM refs WHERE name = ? AND platform = ?", rows)

    # ── files go ──

    def remove_unclaimed(self) -> int:
        """Unlink byte files that no row points to and no process writes; returns bytes freed."""
        freed = 0
        idle = idle_files(self._folder)  # first: what is claimed by then stays claimed
        with self._index.transaction():
            claimed = self._index.files()
            for path in idle:
                if path.name not in claimed:
                    with suppress(FileNotFoundError):
                        freed += path.stat(follow_symlinks=False).st_size
                        path.unlink()
        return freed

    def compact(self, file: str) -> int:
        """Copy the live ranges of a file to a new one, and move the rows; returns the bytes freed.

        0 when a process uses a blob that lies in it. A kill at any moment leaves one of the two
        files without rows, which the next collection removes.
        """
        path, before = self._folder / file, self._rows_of(file)
        names = sorted({row[0] for row in before})
        got = self._locks.exclude(names)
        new = self._folder / self._session.next_file()
        try:
            if not before or len(got) < len(names):
                return 0
            size = path.stat().st_size
            moves = _copy(path, new, _merged([(at, at + length) for _, _, length, at in before]))
            sync_folder(self._folder)
            with self._index.transaction() as db:
                if self._rows_of(file) != before:  # shared with another blob meanwhile
                    return 0
                _swap(db, file, new.name, moves)
            path.unlink(missing_ok=True)
            return size - new.stat().st_size
        except FileNotFoundError:
            # another collection was faster, or the file is lost, which its readers find out
            return 0
        except OSError as error:
            raise local_error(error, f"cannot compact the store's file {path}") from error
        finally:
            self._locks.release(got)
            if not self._index.rows("SELECT 1 FROM extents WHERE file = ? LIMIT 1", (new.name,)):
                new.unlink(missing_ok=True)

    def _rows_of(self, file: str) -> list[tuple[str, int, int, int]]:
        sql = (
            "SELECT digest, start, length, at FROM extents JOIN blobs ON blobs.id = blob "
            "WHERE file = ? ORDER BY at, digest, start"
        )
        return [(str(digest), *numbers) for digest, *numbers in self._index.rows(sql, (file,))]

    def shrink_index(self) -> None:
        """Return free pages of the index to the file system, unless it is in use."""
        ((pages,),) = self._index.rows("PRAGMA page_count")
        ((free,),) = self._index.rows("PRAGMA freelist_count")
        with suppress(LocalError):  # another process reads: the next collection tries again
            if free > _SPARE_PAGES and free * _SPARE_SHARE > pages:
                self._index.rows("VACUUM")
            self._index.rows("PRAGMA wal_checkpoint(TRUNCATE)")


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending ranges as disjoint ones."""
    merged: list[tuple[int, int]] = []
    for low, high in ranges:
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def _copy(old: Path, new: Path, ranges: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Copy the ranges one behind the other, synced; returns (low, high, new offset) of each."""
    moves, at = [], 0
    with old.open("rb") as source, new.open("xb") as target:
        for low, high in ranges:
            moves.append((low, high, at))
            source.seek(low)
            left = high - low
            while left:
                data = source.read(min(left, _COPY_BYTES))
                # shorter than its rows say: damage, which `verify` and pulls find as such
                if not data:
                    target.seek(left, os.SEEK_CUR)
                    break
                target.write(data)
                left -= len(data)
            at += high - low
        target.truncate(at)
        target.flush()
        os.fsync(target.fileno())
    return moves


def _swap(db: sqlite3.Connection, old: str, new: str, moves: list[tuple[int, int, int]]) -> None:
    db.execute(
        "CREATE TEMP TABLE IF NOT EXISTS moves(low INTEGER PRIMARY KEY, high INTEGER, at INTEGER)"
    )
    db.execute("DELETE FROM temp.moves")
    db.executemany("INSERT INTO temp.moves VALUES(?, ?, ?)", moves)
    db.execute(
        "INSERT OR REPLACE INTO extents SELECT blob, start, length, :new, "
        "extents.at - low + moves.at FROM extents JOIN temp.moves "
        "ON low = (SELECT max(low) FROM temp.moves WHERE low <= extents.at) WHERE file = :old",
        {"old": old, "new": new},
    )
    db.execute("DELETE FROM extents WHERE file = ?", (old,))
    places.move(db, old, new)
