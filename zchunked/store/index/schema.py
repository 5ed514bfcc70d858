"""The SQL tables of the store's index, their version, and how they are made (docs/store.md)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from zchunked.store.hints_schema import HINTS
from zchunked.store.index import places

VERSION = 2
OLDER = 1
"""The version before, which lacks some tables: opening it adds them."""

# blobs.whole: 1 once the extents cover the blob and its digest was verified over them. layers: a
# layer whose tar was rebuilt from the store and matched the diff ID. rests: the blobs whose chunks
# that took; none for a layer that was proved from its whole blob.
_TABLES = """
CREATE TABLE blobs(
  id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
  whole INTEGER NOT NULL DEFAULT 0);
CREATE TABLE extents(
  blob INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
  file TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(blob, start, file, at)) WITHOUT ROWID;
CREATE TABLE chunks(
  digest BLOB NOT NULL, blob INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY(digest, blob)) WITHOUT ROWID;
CREATE TABLE layers(
  digest TEXT NOT NULL, diff_id TEXT NOT NULL, tar_size INTEGER NOT NULL, proved REAL NOT NULL,
  PRIMARY KEY(digest, diff_id)) WITHOUT ROWID;
CREATE TABLE rests(
  blob TEXT NOT NULL, layer TEXT NOT NULL, diff_id TEXT NOT NULL,
  PRIMARY KEY(blob, layer, diff_id)) WITHOUT ROWID;
CREATE TABLE refs(
  name TEXT NOT NULL, platform TEXT NOT NULL, manifest TEXT NOT NULL, root TEXT NOT NULL,
  pulled REAL NOT NULL,
  PRIMARY KEY(name, platform)) WITHOUT ROWID;
CREATE TABLE hosts(
  host TEXT PRIMARY KEY, spans INTEGER NOT NULL, learnt REAL NOT NULL) WITHOUT ROWID;
"""
# What part of a file of this machine hashed to when it bore this stamp. A hint: nothing rests on
# it.
_SEEDS = """
CREATE TABLE IF NOT EXISTS seeds(
  inode INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL, stamp BLOB NOT NULL,
  digest BLOB NOT NULL,
  PRIMARY KEY(inode, at, size)) WITHOUT ROWID
"""
ADDED = (_SEEDS, places.TABLE, *HINTS)
"""Statements for tables that came after the version's first; each is made where it is missing."""


def create(db: sqlite3.Connection) -> bool:
    """Make the tables, in the transaction of `db`; returns whether an older zpull's were there."""
    ((version,),) = db.execute("PRAGMA user_version").fetchall()  # another process may be faster
    for statement in _TABLES.split(";") if version == 0 else ():
        db.execute(statement)
    db.execute(f"PRAGMA user_version={VERSION}")
    return bool(version == OLDER)


def name_of(statement: str) -> str:
    """The table that a statement of `ADDED` or its kind makes."""
    return statement.partition("EXISTS ")[2].partition("(")[0]


def refusal(version: int, folder: Path) -> str:
    """Why an index of that version is left alone."""
    age = "a newer" if version > VERSION else "another"
    return (
        f"the store at {folder} was made by {age} version of zpull; use another --store (its "
        f"format is {version}, this version knows {VERSION})"
    )
