"""The index of frames: which stored blob holds the frame of a key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from zchunked.oci.digest import RAW_SIZE
from zchunked.store.index.database import Index
from zchunked.store.index.rows import batches, column, packed_rows

FINGERPRINT_BYTES = 16
"""Of a header frame's key this much is kept: it predicts a frame, and the blob's digest decides."""

Found = tuple[list[int], list[int], list[int], list[int]]
"""In columns: which of the keys, number of the blob, start, compressed length."""
FrameRows = tuple[list[bytes], list[tuple[int, int, int]]]
"""Keys, and of each start, compressed length, decoded size (0 for header frames)."""

# headers: as `chunks`, by what goes into a header frame. unindexed: whole blobs whose frames were
# not requested yet, and a manifest that lists them. indexing: how many frames of an unindexed blob,
# from its first one, are recorded. strangers: pairs of blobs that different encoders wrote, so
# that no frame of one stands in for one of the other.
_TABLES = (
    """CREATE TABLE IF NOT EXISTS headers(
  key BLOB NOT NULL, blob INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
  PRIMARY KEY(key, blob)) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS unindexed(blob INTEGER PRIMARY KEY, manifest TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS indexing(blob INTEGER PRIMARY KEY, frames INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS strangers(
  blob TEXT NOT NULL, other TEXT NOT NULL, PRIMARY KEY(blob, other)) WITHOUT ROWID""",
)

_FORGET = "DELETE FROM {} WHERE blob = (SELECT id FROM blobs WHERE digest = ?)"


def _key(size: int) -> str:
    return f"substr(:keys, 1 + n * {size}, {size})"


class FrameIndex:
    """Thread-safe, as the index that it is a part of. Every method is one transaction."""

    def __init__(self, index: Index) -> None:
        self._index = index
        index.ensure(_TABLES)
        if index.was_older:  # then no pull has noted what lists them
            with index.transaction() as db:
                db.execute("INSERT OR IGNORE INTO unindexed SELECT id, '' FROM blobs WHERE whole")

    def find_payloads(self, digests: Sequence[bytes]) -> Iterator[Found]:
        """Rows of these content digests, which ascend."""
        return self._index.find_keys("chunks", "digest", RAW_SIZE, digests)

    def find_headers(self, keys: Sequence[bytes]) -> Iterator[Found]:
        """Rows of these fingerprints, cut to their size, which ascend."""
        return self._index.find_keys("headers", "key", FINGERPRINT_BYTES, keys)

    def add(
        self,
        digest: str,
        size: int,
        payloads: FrameRows,
        headers: FrameRows,
        *,
        done: int | None = None,
    ) -> None:
        """Enter the frames of a whole blob, best ascending by key. It is indexed afterwards.

        A frame that another whole blob is known to hold, of the same length, gets no second row.
        `done`: these are some; with them so many of its frames, from the first one, have been
        recorded.
        """
        self._index.number_off()
        with self._index.transaction() as db:
            blob = self._index.number(db, digest, size)
            for table, name, rows in (("chunks", "digest", payloads), ("headers", "key", headers)):
                width = RAW_SIZE if table == "chunks" else FINGERPRINT_BYTES
                size_too = f", {column(2)}" if table == "chunks" else ""
                sql = (
                    f"INSERT OR IGNORE INTO {table} SELECT {_key(width)}, :blob, {column(0)}, "
                    f"{column(1)}{size_too} FROM numbers WHERE n < :count AND NOT EXISTS (SELECT "
                    f"1 FROM {table} AS had JOIN blobs ON blobs.id = had.blob AND whole WHERE "
                    f"had.{name} = {_key(width)} AND had.length = {column(1)})"
                )
                for some, numbers in zip(batches(rows[0]), batches(rows[1]), strict=True):
                    parameters = {
                        "keys": b"".join(some),
                        "blob": blob,
                        "count": len(some),
                        "packed": packed_rows(numbers),
                    }
                    db.execute(sql, parameters)
            if done is None:
                db.execute(_FORGET.format("unindexed"), (digest,))
                db.execute(_FORGET.format("indexing"), (digest,))
            else:
                db.execute("INSERT OR REPLACE INTO indexing VALUES(?, ?)", (blob, done))

    def holds_any(self) -> bool:
        """Whether any blob of the store has frames, indexed or not."""
        sql = (
            "SELECT EXISTS (SELECT 1 FROM chunks) OR EXISTS (SELECT 1 FROM headers) OR EXISTS "
            "(SELECT 1 FROM unindexed)"
        )
        return bool(self._index.rows(sql)[0][0])

    def holds_rows(self) -> bool:
        """Whether any frame was recorded."""
        sql = "SELECT EXISTS (SELECT 1 FROM chunks) OR EXISTS (SELECT 1 FROM headers)"
        return bool(self._index.rows(sql)[0][0])

    # ── blobs to index once a pull wants frames ──

    def set_unindexed(self, digests: Iterable[str], manifest: str) -> None:
        """Blobs that are whole, or about to be, and a manifest in the store that lists them."""
        with self._index.transaction() as db:
            sql = "INSERT OR IGNORE INTO unindexed SELECT id, ? FROM blobs WHERE digest = ?"
            for digest in digests:
                db.execute(sql, (manifest, digest))
                # damage may have taken rows since
                db.execute(_FORGET.format("indexing"), (digest,))

    def unindexed(self) -> list[tuple[str, str]]:
        """(blob, manifest) of whole ones; the latter is empty where it is not known."""
        sql = "SELECT digest, manifest FROM unindexed JOIN blobs ON id = blob AND whole ORDER BY id"
        return [(str(blob), str(manifest)) for blob, manifest in self._index.rows(sql)]

    def set_indexed(self, digest: str) -> None:
        """Nothing of the blob can be recorded, or all of it was."""
        with self._index.transaction() as db:
            db.execute(_FORGET.format("unindexed"), (digest,))
            db.execute(_FORGET.format("indexing"), (digest,))

    def indexed_to(self, digest: str) -> int:
        """How many frames of an unindexed blob have been recorded."""
        sql = "SELECT frames FROM indexing JOIN blobs ON id = blob WHERE digest = ?"
        return sum(frames for (frames,) in self._index.rows(sql, (digest,)))

    # ── blobs of other encoders ──

    def strangers_of(self, digest: str) -> set[str]:
        """Blobs whose frames do not stand in for frames of this one."""
        return {
            str(other)
            for (other,) in self._index.rows(
                "SELECT other FROM strangers WHERE blob = ?", (digest,)
            )
        }

    def add_strangers(self, digest: str, others: Iterable[str]) -> None:
        with self._index.transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO strangers VALUES(?, ?)",
                [(digest, other) for other in others],
            )
