"""Forget damaged bytes in the index, of all blobs that share them, with proofs resting on them."""

from __future__ import annotations

import sqlite3

from zchunked.ranges import ByteRange, Spans, merge


def cut(
    db: sqlite3.Connection, digest: str, spans: list[ByteRange], *, keep_proofs: bool = False
) -> dict[str, list[ByteRange]]:
    """As `Index.cut_extents`, of ascending, disjoint spans, within the caller's transaction."""
    gone = {digest: spans}
    found = db.execute("SELECT id FROM blobs WHERE digest = ?", (digest,)).fetchone()
    if found is None:
        return gone
    places = _cut(db, found[0], digest, spans, keep_proofs=keep_proofs)
    for blob, its in _sharing(db, places).items():
        (name,) = db.execute("SELECT digest FROM blobs WHERE id = ?", (blob,)).fetchone()
        gone[str(name)] = merge([*gone.get(str(name), ()), *its])
        _cut(db, blob, str(name), its, keep_proofs=keep_proofs)
    return gone


def _cut(
    db: sqlite3.Connection, blob: int, digest: str, spans: list[ByteRange], *, keep_proofs: bool
) -> dict[str, list[ByteRange]]:
    """Cut spans of one blob; returns the parts of files where they lay."""
    places: dict[str, list[ByteRange]] = {}
    for span in spans:
        hit = db.execute(
            (
                "SELECT start, start + length, file, at FROM extents WHERE blob = ? AND start < "
                "? AND start + length > ?"
            ),
            (blob, span.end, span.start),
        ).fetchall()
        db.executemany(
            "DELETE FROM extents WHERE blob = ? AND start = ? AND file = ? AND at = ?",
            [(blob, start, file, at) for start, _, file, at in hit],
        )
        left = [(start, span.start, file, at) for start, _, file, at in hit if start < span.start]
        left += [
            (span.end, end, file, at + span.end - start)
            for start, end, file, at in hit
            if end > span.end
        ]
        db.executemany(
            "INSERT OR REPLACE INTO extents VALUES(?, ?, ?, ?, ?)",
            [(blob, start, end - start, file, at) for start, end, file, at in left],
        )
        for start, end, file, at in hit:
            low, high = max(start, span.start), min(end, span.end)
            places.setdefault(file, []).append(ByteRange(at + low - start, at + high - start))
    if not keep_proofs:
        _drop_proofs(db, blob, digest, spans)
    return places


def _sharing(
    db: sqlite3.Connection, places: dict[str, list[ByteRange]]
) -> dict[int, list[ByteRange]]:
    """Extents of other blobs in these parts of files.

    Reads all extents: damage is rare, and an index of files is not free.
    """
    shared: dict[int, list[ByteRange]] = {}
    for file, parts in places.items():
        wrong = merge(parts)
        rows = db.execute(
            (
                "SELECT blob, start, length, at FROM extents WHERE file = ? AND at < ? AND at + "
                "length > ?"
            ),
            (file, wrong[-1].end, wrong[0].start),
        ).fetchall()
        for blob, start, length, at in rows:
            for part in wrong:
                low, high = max(at, part.start), min(at + length, part.end)
                if low < high:
                    shared.setdefault(blob, []).append(
                        ByteRange(start + low - at, start + high - at)
                    )
    return {blob: merge(its) for blob, its in shared.items()}


def _drop_proofs(db: sqlite3.Connection, blob: int, digest: str, spans: list[ByteRange]) -> None:
    """Drop proofs of the blob, and those that rest on what was cut of it."""
    db.execute("UPDATE blobs SET whole = 0 WHERE id = ?", (blob,))
    db.execute("DELETE FROM layers WHERE digest = ?", (digest,))
    db.execute("DELETE FROM rests WHERE layer = ?", (digest,))
    if db.execute("SELECT 1 FROM rests WHERE blob = ? LIMIT 1", (digest,)).fetchone():
        held = db.execute("SELECT start, start + length FROM chunks WHERE blob = ?", (blob,))
        wrong = Spans(spans)
        if any(start < end and wrong.overlap(ByteRange(start, end)) for start, end in held):
            drop_dependants(db, digest)


def drop_dependants(db: sqlite3.Connection, digest: str) -> None:
    """Every proof that may have used chunks of the blob."""
    on_it = "(SELECT layer, diff_id FROM rests WHERE blob = ?)"
    db.execute(f"DELETE FROM layers WHERE (digest, diff_id) IN {on_it}", (digest,))
    db.execute(f"DELETE FROM rests WHERE (layer, diff_id) IN {on_it}", (digest,))
