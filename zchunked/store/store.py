"""The store as everyone else sees it: blobs by digest and span, chunks by digest, images by name."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress
from operator import add, and_
from pathlib import Path
from typing import Literal, NamedTuple, Self

from zchunked.errors import IntegrityError
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.digest import Digest, digest_of, from_raw
from zchunked.ranges import ByteRange, Spans, merge, subtract
from zchunked.store.clone import share
from zchunked.store.collector import Collector
from zchunked.store.database import Index
from zchunked.store.disk_errors import local_error
from zchunked.store.extents import ExtentMap, Row
from zchunked.store.files import ByteFiles
from zchunked.store.frame_index import FrameIndex
from zchunked.store.hints import Hints
from zchunked.store.locks import BlobLocks
from zchunked.store.memory import Memory
from zchunked.store.open_index import is_writable, make_folders, read_only
from zchunked.store.pulls import PullLog
from zchunked.store.reads import BlobReads
from zchunked.store.session import NoSession, Session
from zchunked.store.unclaimed import remove_idle, remove_own
from zchunked.store.writer import Rows, Writer, recover


class Place(NamedTuple):
    """Where a chunk's compressed bytes lie: [start, start + length) of a blob."""

    blob: Digest
    start: int
    length: int

    @property
    def span(self) -> ByteRange:
        return ByteRange(self.start, self.start + self.length)


@dataclass(frozen=True, slots=True)
class Image:
    """A name and what it named when it was pulled. `root` is the index's digest where there was one."""

    name: str
    platform: str
    manifest: Digest
    root: Digest
    pulled: float


class Store(Memory, BlobReads):
    """Thread-safe, and safe beside other processes on the same folder. `close` when done; a kill is as good."""

    def __init__(self, folder: Path, *, reads_only: bool = False) -> None:
        """`reads_only`, or a folder that cannot be written to: nothing is made, and nothing is forgotten for good."""
        self.folder, self._blobs = folder, folder / "blobs"
        self.is_read_only = reads_only or not is_writable(folder)
        if not self.is_read_only:
            make_folders(folder, self._blobs)
        super().__init__(Index(folder / "index.sqlite", reads_only=self.is_read_only))
        self.note = self._index.note  # what its file system lacks, for people
        self.hints = Hints(self._index)
        self.frames = FrameIndex(self._index)  # which blobs hold the frame of a key
        self._lock = threading.Lock()
        self._has_dropped = False  # something that this session may have written
        self._claims = threading.Lock()  # between what was evicted and what is entered
        self._maps: dict[Digest, ExtentMap] = {}
        self._files = ByteFiles(self._blobs)
        self._proved_at: dict[Digest, int] = {}  # how many files this session had begun by then
        self._locks = BlobLocks(folder / "pins")
        try:
            self._session = NoSession(self._blobs) if self.is_read_only else Session(self._blobs)
            self.catch_up()
            self.pulls = PullLog(self._index, self._blobs, self._session.name)
        except OSError as error:
            self._index.close()
            raise local_error(error, f"cannot use the store at {folder}") from error

    def close(self) -> None:
        if self._has_dropped and not self.is_read_only:
            remove_own(self._index, self._session)
        for part in (self._files, self._index, self._session, self._locks):
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ── bytes of blobs ──

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
        """For one thread. The caller closes it."""
        with self._lock:
            file = self._session.next_file()
        return Writer(self._session, file, blob, size, self._extents(blob), self._claim)

    def _claim(self, blob: Digest, size: int, rows: Rows) -> None:
        """Enter extents whose bytes are on the disk, save what was evicted since they were written."""
        with self._claims:
            self._index.add_extents(blob, size, self._extents(blob).still(rows))

    def share_extents(self, blob: Digest, size: int, rows: list[Row]) -> bool:
        """Let the blob have bytes that lie in files of other blobs too; False when one of these files is gone.

        The caller has just verified the blob's digest over them and what was here of it.
        """
        if not self._index.add_extents(blob, size, rows, is_there=lambda file: (self._blobs / file).exists()):
            return False
        self._extents(blob).add_many(rows)
        return True

    def is_whole(self, blob: Digest) -> bool:
        """Whether all of the blob is here and verified."""
        return self.whole_size(blob) is not None

    def whole_size(self, blob: Digest) -> int | None:
        """In bytes, proved by the blob's digest; None unless all of it is here."""
        self._locks.pin(blob)
        return self._index.whole_size(blob)

    def adopt(self, blob: Digest, size: int, handle: int) -> bool:
        """Take over the file behind `handle`, which is closed, as all of a blob; False unless that needs no copy.

        Its digest is not verified: whoever proves the layer does that.
        """
        try:
            if not size or os.fstat(handle).st_size != size:
                return False
            with self._lock:
                file = self._session.next_file()
            if not share(handle, self._blobs / file):
                return False
        except OSError as error:
            raise local_error(error, f"cannot write to the store at {self.folder}") from error
        finally:
            os.close(handle)
        fresh = self._extents(blob).add(0, size, file, 0)
        self._claim(blob, size, [(span.start, span.end, file, span.start) for span in fresh])
        return True

    def keep(self, pieces: Iterable[bytes]) -> tuple[Digest, int]:
        """A new blob of any size, made on this machine; its digest and size. What `pieces` raises leaves nothing."""
        with self._lock:
            file = self._session.next_file()
        path, hasher, size = self._blobs / file, hashlib.sha256(), 0
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as out:
                for piece in pieces:
                    hasher.update(piece)
                    size += out.write(piece)
                out.flush()
                os.fsync(out.fileno())
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise local_error(error, f"cannot write to the store at {self.folder}") from error
            raise
        digest = from_raw(hasher.digest())
        fresh = self._extents(digest).add(0, size, file, 0) if size else []
        if fresh:
            self._claim(digest, size, [(span.start, span.end, file, span.start) for span in fresh])
        else:  # it was here
            path.unlink(missing_ok=True)
        self.set_whole(digest, size)
        return digest, size

    def set_whole(self, blob: Digest, size: int) -> None:
        """The caller has just verified the digest over `stream`."""
        self._index.set_whole(blob, size)
        self._proved_at[blob] = self._session.files

    def put(self, data: bytes) -> Digest:
        """Keep a small object (manifest, config) whole; returns its digest. Whatever else was here in its name goes."""
        digest = digest_of(data)
        if not self.is_whole(digest):
            self.drop_lost(digest)
            for start, end in self.covered(digest):
                if self.read(digest, start, end) != data[start:end]:
                    self.evict(digest, [ByteRange(start, end)])
            if data:
                writer = self.writer(digest, len(data))
                writer.write(0, data)
                writer.close()
            self.set_whole(digest, len(data))
        return digest

    def get(self, blob: Digest, size: int) -> bytes | None:
        """A small object if it is here and good; `size` is a claim, and drops nothing that was proved with another."""
        known, span = self.whole_size(blob), ByteRange(0, size)
        if size > DEFAULT_LIMITS.manifest_bytes or known not in (None, size):
            return None
        if not self.covers(blob, span) or (not size and known is None):
            return None
        try:
            data = self.read(blob, 0, size)
        except IntegrityError:
            data = b""
            self.drop_lost(blob)
        if digest_of(data) == blob:
            return data
        (self.distrust if known is None else self.evict)(blob, [span])
        return None

    def document(self, digest: Digest) -> bytes | None:
        """A manifest or index by digest alone."""
        covered = self.covered(digest)
        return self.get(digest, covered[0].end) if len(covered) == 1 and covered[0].start == 0 else None

    def distrust(self, blob: Digest, spans: Iterable[ByteRange]) -> list[ByteRange]:
        """Forget bytes that are not what a manifest or a TOC says, as far as that may be believed; returns which.

        Of a blob that was proved only what came since: a stranger's claim about it is no reason to drop it.
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
        """Forget bytes that a digest of their own convicts, whatever blobs share them, and proofs that rest on them."""
        extents, wrong = self._extents(blob), list(spans)
        with self._claims:
            self._has_dropped = True
            for span in wrong:
                extents.cut(span.start, span.end)
            gone = self._index.cut_extents(blob, wrong, keep_proofs=keep_proofs)
            with self._lock:
                loaded = [(self._maps[Digest(other)], gone[other]) for other in gone if Digest(other) in self._maps]
            for shared, its in loaded:
                for span in its:
                    shared.cut(span.start, span.end)

    def forget(self, blob: Digest) -> None:
        """Drop a blob: its extents, chunks and proofs. Nothing is wrong with bytes that other blobs share."""
        with self._claims:
            self._has_dropped = True
            self._extents(blob).cut(0, sys.maxsize)
            self._index.forget(blob)

    def collector(self) -> Collector:
        """For a store that was opened to collect garbage and for nothing else."""
        if self.is_read_only:
            raise read_only(self.folder)
        return Collector(self._index, self._blobs, self._locks, self._session, self.pulls)

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
            self.drop_chunks(blob, ())
        return lost

    def drop_unclaimed(self) -> int:
        """Remove byte files that no extent points to and no process writes; returns how many."""
        return 0 if self.is_read_only else remove_idle(self._index, self._blobs)

    # ── chunks ──

    def find_chunks(self, digests: Iterable[bytes]) -> dict[bytes, Place]:
        """Where chunks lie, as far as rows promise them and their bytes are here; of several places the newest.

        A blob that came in parts goes first, since each chunk was hashed: of one that came whole it is its TOC's claim.
        """
        found: dict[bytes, Place] = {}
        known: dict[int, tuple[Digest, Spans]] = {}
        ranks: dict[int, tuple[bool, int]] = {}
        ordered = sorted(digests)
        for which, numbers, starts, lengths in self._index.find_chunks(ordered):
            for number in set(numbers) - known.keys():
                blob = self.blob_of(number)
                known[number], ranks[number] = (blob, Spans(self.covered(blob))), (not self.is_whole(blob), number)
            for number in sorted(set(numbers), key=ranks.__getitem__):
                blob, here = known[number]
                held = map(and_, map(number.__eq__, numbers), here.hold_each(starts, map(add, starts, lengths)))
                rows = compress(zip(which, starts, lengths, strict=True), held)
                found.update([(ordered[at], Place(blob, start, length)) for at, start, length in rows])
        return found

    def blob_of(self, number: int) -> Digest:
        """The blob that rows of the index name by its number."""
        return Digest(self._index.blob(number))

    def add_chunks(self, blob: Digest, size: int, rows: Iterable[tuple[bytes, int, int, int]]) -> None:
        """Promise chunks: (raw digest, start, length, decoded size), all in `blob`; best many, ascending."""
        self._index.add_chunks(blob, size, rows)

    def chunks_of(self, blob: Digest) -> list[tuple[bytes, int, int, int]]:
        """(raw digest, start, length, decoded size) of the chunks promised in a blob, in blob order."""
        return self._index.chunks_of(blob)

    def drop_chunks(self, blob: Digest, digests: Iterable[bytes]) -> None:
        """Take promises back; every layer that rests on chunks of the blob is proved again when next pulled."""
        self._index.drop_chunks(blob, digests)

    # ── layers, images ──

    def proof(self, layer: Digest, diff_id: Digest) -> int | None:
        """The tar's size if the layer was proved against the diff ID from what is here."""
        self._locks.pin(layer)
        return self._index.proof(layer, diff_id)

    def is_pulled(self, layer: Digest, diff_id: Digest) -> bool:
        """Whether the layer was proved by its blob's digest or by its diff ID."""
        return self.is_whole(layer) or self.proof(layer, diff_id) is not None

    def proved_by(self, layer: Digest, diff_id: Digest) -> Literal["blob", "diff_id", "both"] | None:
        """Which of the layer's digests were proved over what is here."""
        is_tar = self.proof(layer, diff_id) is not None
        if self.is_whole(layer):
            return "both" if is_tar else "blob"
        return "diff_id" if is_tar else None

    def is_proved(self, layer: Digest) -> bool:
        """The same, against whatever diff ID."""
        self._locks.pin(layer)
        return self._index.is_proved(layer)

    def add_proof(self, layer: Digest, diff_id: Digest, tar_size: int, blobs: Iterable[Digest] = ()) -> None:
        """`blobs`: those that hold its chunks, where the layer is here in parts; the proof goes when theirs do."""
        self._index.add_proof(layer, diff_id, tar_size, blobs)
        self._proved_at[layer] = self._session.files

    def drop_proofs(self, layer: Digest) -> None:
        """The layer is to be proved again when next pulled."""
        self._index.drop_proofs(layer)

    def set_image(self, name: str, platform: str, manifest: Digest, root: Digest) -> None:
        self._index.set_ref(name, platform, manifest, root)

    def images(self) -> list[Image]:
        """Newest first."""
        return [Image(n, p, Digest(m), Digest(r), t) for n, p, m, r, t in self._index.refs()]
