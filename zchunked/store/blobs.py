"""Blobs of a store by digest and span: what is here of them, written, shared, verified, dropped."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from zchunked.local.paths import is_there
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, merge, subtract
from zchunked.store.extents import ExtentMap, Row
from zchunked.store.files.byte_files import ByteFiles
from zchunked.store.files.journal import Rows, recover
from zchunked.store.files.new_files import adopt_file, write_file
from zchunked.store.files.reads import BlobReads
from zchunked.store.files.writer import Writer
from zchunked.store.folder import OpenedFolder


class Blobs(OpenedFolder, BlobReads):
    """The part of a store that holds bytes. Thread-safe."""

    def __init__(self, folder: Path, *, reads_only: bool = False) -> None:
        """As the folder is opened."""
        self._lock = threading.Lock()
        self._claims = threading.Lock()  # between what was evicted and what is recorded
        self._maps: dict[Digest, ExtentMap] = {}
        self._files = ByteFiles(folder / "blobs")
        self._proved_at: dict[Digest, int] = {}  # how many files this session had begun by then
        super().__init__(folder, reads_only=reads_only)

    def close(self) -> None:
        self._files.close()
        super().close()

    def _extents(self, blob: Digest) -> ExtentMap:
        with self._lock:
            found = self._maps.get(blob)
            if found is None:
                self._locks.pin(blob)
                rows = self._index.extents(blob)
                # Each row has brought a name of its own.
                rows = [(start, end, sys.intern(file), at) for start, end, file, at in rows]
                found = self._maps[blob] = ExtentMap.of(rows)
            return found

    def covered(self, blob: Digest) -> list[ByteRange]:
        """What of the blob is here, ascending and disjoint."""
        return self._extents(blob).covered()

    def missing(self, blob: Digest, spans: Iterable[ByteRange]) -> list[ByteRange]:
        """What of the spans is not here. Costs no more than it touches."""
        extents = self._extents(blob)
        return [gap for span in spans for gap in extents.missing(span.start, span.end)]

    def covers(self, blob: Digest, span: ByteRange) -> bool:
        return self._extents(blob).covers(span.start, span.end)

    def writer(self, blob: Digest, size: int) -> Writer:
        """Open a writer for one thread; the caller closes it."""
        return Writer(self._blobs / self._next_file(), blob, size, self._extents(blob), self._claim)

    def _next_file(self) -> str:
        with self._lock:
            return self._session.next_file()

    def _claim(self, blob: Digest, size: int, rows: Rows) -> None:
        """Record extents whose bytes are on the disk, except those evicted since."""
        with self._claims:
            self._index.add_extents(blob, size, self._extents(blob).still(rows))

    def share_extents(self, blob: Digest, size: int, rows: list[Row]) -> bool:
        """Give the blob bytes in files of other blobs too; False when a file is gone.

        The caller has just verified the blob's digest over them and what was here of it.
        """
        if not self._index.add_extents(
            blob, size, rows, is_there=lambda file: is_there(self._blobs / file)
        ):
            return False
        self._extents(blob).add_many(rows)
        return True

    def is_whole(self, blob: Digest) -> bool:
        """Whether all of the blob is here and verified."""
        return self.whole_size(blob) is not None

    def whole_size(self, blob: Digest) -> int | None:
        """Bytes of a blob, proved by its digest; None unless all of it is stored."""
        self._locks.pin(blob)
        return self._index.whole_size(blob)

    def adopt(self, blob: Digest, size: int, handle: int) -> bool:
        """Adopt the file behind `handle`, then close it, as the blob; False if it needs a copy.

        Its digest is not verified: the proof of the layer does that.
        """
        file = self._next_file()
        if not adopt_file(handle, size, self._blobs / file):
            return False
        self._record_file(blob, size, file)
        return True

    def _record_file(self, blob: Digest, size: int, file: str) -> bool:
        """Record that this file holds all the blob's missing bytes; False if none were."""
        fresh = self._extents(blob).add(0, size, file, 0) if size else []
        if fresh:
            self._claim(blob, size, [(span.start, span.end, file, span.start) for span in fresh])
        return bool(fresh)

    def keep(self, pieces: Iterable[bytes]) -> tuple[Digest, int]:
        """Store a new blob of any size, made on this machine; returns its digest and size.

        What `pieces` raises leaves nothing.
        """
        file = self._next_file()
        digest, size = write_file(pieces, self._blobs / file)
        if not self._record_file(digest, size, file):
            (self._blobs / file).unlink(missing_ok=True)
        self.set_whole(digest, size)
        return digest, size

    def set_whole(self, blob: Digest, size: int) -> None:
        """The caller has just verified the digest over `stream`."""
        self._index.set_whole(blob, size)
        self._proved_at[blob] = self._session.files

    def report_corruption(self, blob: Digest, spans: Iterable[ByteRange]) -> list[ByteRange]:
        """Forget bytes that are not what a manifest or a TOC says; returns those forgotten.

        Of a blob that was proved only what came since: a stranger's claim about it is no reason to
        drop it.
        """
        wrong = merge(spans)
        if not self._index.is_relied_on(blob):
            self.evict(blob, wrong)
            return wrong
        since = self._proved_at.get(blob, 0)
        rows = [ByteRange(start, end) for start, end, file, _ in self._extents(blob).rows()
                if self._session.has_begun(file, since)]  # fmt: skip
        ours = subtract(wrong, subtract(wrong, merge(rows)))
        if ours:
            self.evict(blob, ours, keep_proofs=True)
        return ours

    def evict(self, blob: Digest, spans: Iterable[ByteRange], *, keep_proofs: bool = False) -> None:
        """Forget bytes whose digest is wrong, in all blobs sharing them, with their proofs."""
        extents, wrong = self._extents(blob), list(spans)
        with self._claims:
            self._has_dropped = True
            for span in wrong:
                extents.cut(span.start, span.end)
            gone = self._index.cut_extents(blob, wrong, keep_proofs=keep_proofs)
            with self._lock:
                loaded = [
                    (self._maps[Digest(other)], gone[other])
                    for other in gone
                    if Digest(other) in self._maps
                ]
            for shared, its in loaded:
                for span in its:
                    shared.cut(span.start, span.end)

    def forget(self, blob: Digest) -> None:
        """Drop a blob: its extents, chunks and proofs. Bytes that other blobs share stay."""
        with self._claims:
            self._has_dropped = True
            self._extents(blob).cut(0, sys.maxsize)
            self._index.forget(blob)

    def catch_up(self) -> None:
        """Learn what other processes have brought since, those that are gone too."""
        for leftover in recover(self._blobs) if not self.is_read_only else ():
            self._index.add_extents(leftover.blob, leftover.size, leftover.rows)
        with self._lock:
            for blob, extents in self._maps.items():
                extents.add_many(self._index.extents(blob))

    def refresh(self) -> None:
        """Ask the index again for what lies where. Not while anything is read or written."""
        with self._lock:
            self._maps.clear()
            self._proved_at.clear()

    def blobs(self) -> list[tuple[Digest, int, bool]]:
        """(digest, size, whether it is whole) of everything that something is here of."""
        return [(Digest(digest), size, is_whole) for digest, size, is_whole in self._index.blobs()]

    def drop_lost(self, blob: Digest) -> list[ByteRange]:
        """Forget extents whose file is gone or too short; returns them."""
        lost = []
        for start, end, file, at in self._extents(blob).rows():
            length = self._files.length(file)
            if at + end - start > length:
                lost.append(ByteRange(start + max(length - at, 0), end))
        if lost:
            self.evict(blob, lost)
            self._index.drop_chunks(blob, ())  # and proofs that rest on them
        return lost
