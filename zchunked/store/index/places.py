"""Sums of bytes by blob and file: tell what images share without reading every extent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

TABLE = (
    "CREATE TABLE IF NOT EXISTS places(blob INTEGER NOT NULL, file TEXT NOT NULL, bytes INTEGER "
    "NOT NULL)"
)
"""A hint: what was recorded, in as many rows as commits. Damage and trimming leave it as it is."""

QUERY = (
    "SELECT digest, file, min(sum(bytes), size) FROM places JOIN blobs ON id = blob GROUP BY "
    "blob, file"
)


def add(db: sqlite3.Connection, blob: int, sums: Iterable[tuple[str, int]]) -> None:
    """The blob has so many bytes more in each file."""
    db.executemany(
        "INSERT INTO places VALUES(?, ?, ?)", [(blob, file, count) for file, count in sums]
    )


def move(db: sqlite3.Connection, old: str, new: str) -> None:
    """A file was written anew under another name."""
    db.execute("UPDATE places SET file = ? WHERE file = ?", (new, old))


def forget(db: sqlite3.Connection, ids: str) -> None:
    """`ids`: SQL for the numbers of blobs that are gone."""
    db.execute(f"DELETE FROM places WHERE blob IN {ids}")
