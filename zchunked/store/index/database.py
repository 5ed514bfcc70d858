"""The rows of the store's index: blobs and their extents, chunks, layers and names."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from zchunked.findings import Image
from zchunked.oci.digest import RAW_SIZE
from zchunked.ranges import ByteRange, merge
from zchunked.store.files.journal import Rows
from zchunked.store.index import damage, places
from zchunked.store.index.connection import IndexConnection
from zchunked.store.index.rows import AT_ONCE, batches, column, packed_rows, stored, unstored

_ID = "(SELECT id FROM blobs WHERE digest = ?)"
_DIGEST = f"substr(:digests, 1 + n * {RAW_SIZE}, {RAW_SIZE})"


class Index(IndexConnection):
    """Every method is one transaction."""

    # ── blobs and extents ──

    @staticmethod
    def number(db: sqlite3.Connection, digest: str, size: int) -> int:
        db.execute("INSERT OR IGNORE INTO blobs(digest, size) VALUES(?, ?)", (digest, size))
        (found,) = db.execute("SELECT id FROM blobs WHERE digest = ?", (digest,)).fetchone()
        return int(found)

    def add_extents(
        self, digest: str, size: int, rows: Rows, *, is_there: Callable[[str], bool] | None = None
    ) -> bool:
        """Record extents. `is_there`: of shared files; False, unchanged, if one is gone."""
        by_file: dict[str, list[tuple[int, int, int]]] = {}
        for start, end, file, at in rows:
            by_file.setdefault(file, []).append((start, end - start, at))
        self.number_off()
        with self.transaction() as db:
            if is_there is not None and not all(map(is_there, by_file)):
                return False
            blob = self.number(db, digest, size)
            sql = (
                f"INSERT INTO extents SELECT :blob, {column(0)}, {column(1)}, :file, {column(2)} "
                "FROM numbers WHERE n < :count "
                # A run that was committed half grows its row.
                "ON CONFLICT DO UPDATE SET length = max(length, excluded.length)"
            )
            for file, its in by_file.items():
                for some in batches(its):
                    values = {"blob": blob, "file": file, "packed": packed_rows(some)}
                    db.execute(sql, values | {"count": len(some)})
            sums = [(file, sum([row[1] for row in its])) for file, its in by_file.items()]
            places.add(db, blob, sums)
        return True

    def extents(self, digest: str) -> Rows:
        sql = (
            f"SELECT start, start + length, file, at FROM extents WHERE blob = {_ID} ORDER BY start"
        )
        return self.rows(sql, (digest,))

    def cut_extents(
        self, digest: str, spans: Iterable[ByteRange], *, keep_proofs: bool = False
    ) -> dict[str, list[ByteRange]]:
        """Forget these bytes of a blob, in whatever file they lie, and of all that share them.

        With them go the proofs of all these blobs and those that rest on them. What another process
        has recorded meanwhile stays, and so does what it will. Returns what was forgotten of which
        blob. `keep_proofs`: they are bytes that came later than all proofs.
        """
        with self.transaction() as db:
            return damage.cut(db, digest, merge(spans), keep_proofs=keep_proofs)

    def forget(self, digest: str) -> None:
        """Drop a blob's extents, chunks and proofs. Bytes that other blobs share stay theirs."""
        with self.transaction() as db:
            db.execute(f"DELETE FROM extents WHERE blob = {_ID}", (digest,))
            db.execute(f"DELETE FROM places WHERE blob = {_ID}", (digest,))
            db.execute(f"DELETE FROM chunks WHERE blob = {_ID}", (digest,))
            db.execute("UPDATE blobs SET whole = 0 WHERE digest = ?", (digest,))
            db.execute("DELETE FROM layers WHERE digest = ?", (digest,))
            db.execute("DELETE FROM rests WHERE layer = ?", (digest,))
            damage.drop_dependants(db, digest)

    def blobs(self) -> list[tuple[str, int, bool]]:
        """(digest, size, whole) of every blob that something is here of."""
        return [
            (str(d), int(s), bool(w))
            for d, s, w in self.rows("SELECT digest, size, whole FROM blobs ORDER BY id")
        ]

    def whole_size(self, digest: str) -> int | None:
        """Bytes of a blob, proved; None unless all of it is stored and was verified."""
        rows = self.rows("SELECT size FROM blobs WHERE digest = ? AND whole", (digest,))
        return int(rows[0][0]) if rows else None

    def is_relied_on(self, digest: str) -> bool:
        """Whether the blob was proved, by its own digest or as a layer."""
        sql = (
            "SELECT 1 FROM blobs WHERE digest = ? AND whole UNION ALL SELECT 1 FROM layers "
            "WHERE digest = ?"
        )
        return bool(self.rows(sql, (digest, digest)))

    def set_whole(self, digest: str, size: int) -> None:
        with self.transaction() as db:
            # The size that was proved, whatever a manifest said before.
            db.execute(
                "UPDATE blobs SET whole = 1, size = ? WHERE id = ?",
                (size, self.number(db, digest, size)),
            )

    def files(self) -> set[str]:
        return {str(file) for (file,) in self.rows("SELECT DISTINCT file FROM extents")}

    def remove_unclaimed(self, files: Iterable[str], remove: Callable[[str], None]) -> int:
        """Remove those of the files that no extent points to; none can begin to meanwhile."""
        with self.transaction() as db:
            claimed = {str(file) for (file,) in db.execute("SELECT DISTINCT file FROM extents")}
            unclaimed = [file for file in files if file not in claimed]
            for file in unclaimed:
                remove(file)
        return len(unclaimed)

    # ── chunks ──

    def add_chunks(
        self, digest: str, size: int, rows: Iterable[tuple[bytes, int, int, int]]
    ) -> None:
        """Record (raw digest, start, length, decoded size) in the blob; best ascending."""
        self.number_off()
        with self.transaction() as db:
            blob = self.number(db, digest, size)
            sql = (
                f"INSERT OR IGNORE INTO chunks SELECT {_DIGEST}, :blob, "
                f"{column(0)}, {column(1)}, {column(2)} FROM numbers WHERE n < :count"
            )
            for some in batches(rows):
                digests = b"".join([row[0] for row in some])
                packed = packed_rows([row[1:] for row in some])
                db.execute(
                    sql, {"digests": digests, "blob": blob, "count": len(some), "packed": packed}
                )

    def find_keys(
        self, table: str, name: str, width: int, keys: Sequence[bytes]
    ) -> Iterator[tuple[list[int], list[int], list[int], list[int]]]:
        """Rows with these keys and lengths in a column: (key, blob's number, start, length).

        The keys ascend: neighbours in the index are looked up together.
        """
        sql = (
            "SELECT group_concat(printf('%d %d %d %d', n + :first, blob, start, length), ' ') "
            f"FROM numbers CROSS JOIN {table} ON {name} = substr(:keys, 1 + n * {width}, {width}) "
            "WHERE n < :count"
        )
        self.number_off()
        for at in range(0, len(keys), AT_ONCE):
            some = keys[at : at + AT_ONCE]
            ((found,),) = self.rows(sql, {"first": at, "keys": b"".join(some), "count": len(some)})
            columns = list(map(int, (found or "").split()))
            yield columns[0::4], columns[1::4], columns[2::4], columns[3::4]

    def blob(self, number: int) -> str:
        """The digest of a blob that a row names by its number; nothing where the index lies."""
        rows = self.rows("SELECT digest FROM blobs WHERE id = ?", (number,))
        return str(rows[0][0]) if rows else ""

    def chunks_of(self, digest: str) -> list[tuple[bytes, int, int, int]]:
        sql = f"SELECT digest, start, length, size FROM chunks WHERE blob = {_ID} ORDER BY start"
        return self.rows(sql, (digest,))

    def drop_chunks(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Forget that the blob holds these, and every proof that may have used them."""
        with self.transaction() as db:
            sql = f"DELETE FROM chunks WHERE digest = ? AND blob = {_ID}"
            db.executemany(sql, [(chunk, digest) for chunk in chunks])
            damage.drop_dependants(db, digest)

    # ── layers and refs ──

    def proof(self, digest: str, diff_id: str) -> int | None:
        """The size of the layer's tar if it was proved."""
        rows = self.rows(
            "SELECT tar_size FROM layers WHERE digest = ? AND diff_id = ?", (digest, diff_id)
        )
        return int(rows[0][0]) if rows else None

    def is_proved(self, digest: str) -> bool:
        return bool(self.rows("SELECT 1 FROM layers WHERE digest = ?", (digest,)))

    def add_proof(
        self, digest: str, diff_id: str, tar_size: int, blobs: Iterable[str] = ()
    ) -> None:
        """`blobs`: those whose chunks it took, where the layer is here in parts."""
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO layers VALUES(?, ?, ?, ?)",
                (digest, diff_id, tar_size, time.time()),
            )
            db.execute("DELETE FROM rests WHERE layer = ? AND diff_id = ?", (digest, diff_id))
            db.executemany(
                "INSERT INTO rests VALUES(?, ?, ?)", [(blob, digest, diff_id) for blob in {*blobs}]
            )

    def drop_proofs(self, digest: str) -> None:
        """Forget that the layer was proved, against whatever diff ID."""
        with self.transaction() as db:
            db.execute("DELETE FROM layers WHERE digest = ?", (digest,))
            db.execute("DELETE FROM rests WHERE layer = ?", (digest,))

    def set_ref(self, name: str, platform: str, manifest: str, root: str) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO refs VALUES(?, ?, ?, ?, ?)",
                (stored(name), platform, manifest, root, time.time()),
            )

    def images(self) -> list[Image]:
        """Newest first."""
        rows = self.rows(
            "SELECT name, platform, manifest, root, pulled FROM refs ORDER BY pulled DESC"
        )
        return [Image(unstored(name), *rest) for name, *rest in rows]
