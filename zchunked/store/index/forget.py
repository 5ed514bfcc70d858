"""What a collection forgets, and the rows that go with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from zchunked.findings import Image
from zchunked.ranges import ByteRange
from zchunked.store.index import places


@dataclass(frozen=True, slots=True)
class Drop:
    """What a collection forgets: blobs; of others all but some spans; names; pulls by their number.

    `rests`: on which blobs a layer's proof rests from now on. `kept_chunks`: of the trimmed blobs,
    by raw digest. `to_index`: whole blobs that may hold frames of which a dead one had the only
    row, and manifests that list them.
    """

    blobs: Sequence[str] = ()
    trimmed: Mapping[str, Sequence[ByteRange]] = field(default_factory=dict)
    kept_chunks: Mapping[str, Iterable[bytes]] = field(default_factory=dict)
    rests: Mapping[tuple[str, str], Iterable[str]] = field(default_factory=dict)
    refs: Sequence[Image] = ()
    pulls: Sequence[int] = ()
    to_index: Sequence[tuple[str, str]] = ()


def forget_blobs(db: sqlite3.Connection, drop: Drop, names: Sequence[str]) -> None:
    """Delete the rows of what is dropped of these blobs, in the transaction of `db`."""
    for table in (
        "dead(name TEXT PRIMARY KEY)",
        "kept(digest BLOB, name TEXT, PRIMARY KEY(digest, name))",
    ):
        db.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table}")
        db.execute(f"DELETE FROM temp.{table.partition('(')[0]}")
    db.executemany("INSERT INTO temp.dead VALUES(?)", [(name,) for name in names])
    kept = [(digest, name) for name, digests in drop.kept_chunks.items() for digest in digests]
    db.executemany("INSERT OR IGNORE INTO temp.kept VALUES(?, ?)", kept)
    left = [row for name, spans in drop.trimmed.items() for row in _trimmed(db, name, spans)]
    ids = "(SELECT id FROM blobs JOIN temp.dead ON name = blobs.digest)"
    db.execute(f"DELETE FROM extents WHERE blob IN {ids}")
    db.executemany("INSERT OR REPLACE INTO extents VALUES(?, ?, ?, ?, ?)", left)
    still = (
        "SELECT kept.digest FROM temp.kept JOIN blobs ON blobs.digest = kept.name WHERE "
        "blobs.id = chunks.blob"
    )
    db.execute(f"DELETE FROM chunks WHERE blob IN {ids} AND digest NOT IN ({still})")
    db.execute(f"DELETE FROM headers WHERE blob IN {ids}")
    places.forget(db, ids)
    db.execute(f"DELETE FROM unindexed WHERE blob IN {ids}")
    db.execute(f"DELETE FROM indexing WHERE blob IN {ids}")
    db.execute("DELETE FROM strangers WHERE blob IN (SELECT name FROM temp.dead)")
    db.execute("DELETE FROM strangers WHERE other IN (SELECT name FROM temp.dead)")
    db.execute("DELETE FROM layers WHERE digest IN (SELECT name FROM temp.dead)")
    db.execute("DELETE FROM rests WHERE layer IN (SELECT name FROM temp.dead)")
    for (layer, diff_id), blobs in drop.rests.items():
        if layer in names:
            continue
        db.execute("DELETE FROM rests WHERE layer = ? AND diff_id = ?", (layer, diff_id))
        db.executemany(
            "INSERT OR IGNORE INTO rests VALUES(?, ?, ?)",
            [(blob, layer, diff_id) for blob in blobs],
        )
    db.execute(f"UPDATE blobs SET whole = 0 WHERE id IN {ids}")
    # The newest number is not given out twice: a running process may have read it in a row that is
    # gone now.
    db.execute(
        f"DELETE FROM blobs WHERE id IN {ids} AND id < (SELECT max(id) FROM blobs) "
        "AND id NOT IN (SELECT blob FROM extents)"
    )
    db.executemany(
        "INSERT OR IGNORE INTO unindexed SELECT id, ? FROM blobs WHERE digest = ? AND whole",
        [(manifest, blob) for blob, manifest in drop.to_index],
    )
    to_index = [(blob,) for blob, _ in drop.to_index]
    db.executemany(
        "DELETE FROM indexing WHERE blob = (SELECT id FROM blobs WHERE digest = ?)", to_index
    )


def _trimmed(
    db: sqlite3.Connection, name: str, spans: Sequence[ByteRange]
) -> Iterator[tuple[int, int, int, str, int]]:
    """The extents of a blob cut to these ascending spans."""
    sql = (
        "SELECT blob, start, length, file, at FROM extents JOIN blobs ON id = blob WHERE "
        "blobs.digest = ? ORDER BY start"
    )
    first = 0
    for blob, start, length, file, at in db.execute(sql, (name,)).fetchall():
        while first < len(spans) and spans[first].end <= start:
            first += 1
        for span in spans[first:]:
            if span.start >= start + length:
                break
            low, high = max(start, span.start), min(start + length, span.end)
            yield blob, low, high - low, file, at + low - start
