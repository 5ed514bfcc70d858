"""Read the tables of stored blobs when a pull wants their frames, or when reading its own pays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError
from zchunked.formats.layer_format import toc_bytes_of
from zchunked.layers.index_frames import (
    Unindexed,
    index_blobs,
    read_table,
    record_some,
    recorded_headers,
    unindexed,
)
from zchunked.layers.metadata import read_index
from zchunked.layers.stored_toc import StoredToc
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.pull.layer import LayerTask
from zchunked.pull.planning.stored_tables import Tables, tables_of
from zchunked.pull.planning.ways import (
    LackingLayer,
    seconds_for_others,
    worth_reading,
)
from zchunked.pull.session import PullSession
from zchunked.ranges import total

_BESIDE = 4  # a table is read beside a download that takes so many times longer
_RECORD_SECONDS = 2.0  # that a download needs all the same: enough to record some frames beside it


class StoredFrames:
    """Frames of the blobs in a pull's store. Thread-safe."""

    def __init__(self, session: PullSession) -> None:
        self._session, self._store, self._limits = session, session.store, session.options.limits
        self._lock = threading.Lock()
        self._image: dict[Digest, LackingLayer] = {}
        self._tables = Tables()
        self._unread: list[Unindexed] | None = (
            None  # not before they are chosen, once they are read
        )
        self._unrecorded: list[StoredToc] = []
        self._running = 0
        self._is_recording = False
        self.tables: list[StoredToc] = []
        """TOCs that were read, the newest first. Complete once `are_known`."""
        self.toc_bytes = 0
        """Of the stored TOCs that are read if any of the image's is; compressed."""

    @property
    def are_known(self) -> bool:
        """Whether all requested frames can be found, in `tables` or in the index."""
        return not self._running

    def expect(self, layers: Iterable[Descriptor]) -> None:
        """Note the layers that the image lacks: whether TOCs are read is decided for all."""
        for layer in layers:
            lacking = LackingLayer(self._missing(layer), toc_bytes_of(layer, self._limits))
            with self._lock:
                self._image[layer.digest] = lacking

    def _missing(self, layer: Descriptor) -> int:
        return layer.size - total(self._store.covered(layer.digest))

    def prepare(self, *, may_wait: bool, as_rows: bool, is_promised: bool) -> None:
        """Read tables whose frames are not in the index; `may_wait`: not before `read_all`.

        Those of the repository's last image, and others where they take little of the time that
        the bytes take. `is_promised`: all, for nothing that is stored may be fetched. `as_rows`:
        all go into the index.
        """
        waiting = unindexed(self._store, self._limits)
        if as_rows:
            self._tables = Tables(others=waiting)
        else:
            self._tables = tables_of(self._store, self._session.origin.reference.name, waiting)
        self._unread = list(self._tables.first)
        self.toc_bytes = sum(one.toc_bytes for one in self._unread)
        if as_rows or is_promised:
            self._index(self._tables.take_all())
        if not may_wait:
            self.read_all()

    def _index(self, blobs: list[Unindexed]) -> None:
        self._submit(partial(index_blobs, self._store, blobs, self._limits), blobs)

    def _submit(self, read: Callable[[], None], blobs: list[Unindexed]) -> None:
        """Call it on the read queue, before the TOCs of this pull: two in memory are too many."""

        def done() -> None:
            read()
            with self._lock:
                self._running -= 1

        if blobs:
            with self._lock:
                self._running += 1
            self._session.pool.submit("read", done)

    def read_all(self) -> None:
        """Read the tables that were chosen, once."""
        now = self._session.conditions.now()
        with self._lock:
            first, self._unread = self._unread, None
            if first is None:
                return
            missing = sum(layer.blob_bytes for layer in self._image.values())
            seconds = seconds_for_others(missing, self.toc_bytes, now.link, now.costs)
            joined, rows = self._tables.take(seconds / now.costs.table_byte)
        self._index(rows)
        blobs = [*first, *joined]

        def read() -> None:
            for one in blobs:
                if (table := self._read(one)) is not None:
                    self.tables.append(table)
                    self._unrecorded.append(table)

        self._submit(read, blobs)

    def _read(self, one: Unindexed) -> StoredToc | None:
        spent, began = self._session.conditions.tables_read, time.thread_time()
        table = read_table(self._store, one, self._limits)
        spent.bytes += one.toc_bytes
        spent.seconds += time.thread_time() - began
        return table

    def skip(self, layer: Descriptor, toc_bytes: int) -> bool:
        """Whether a TOC is not worth being read. The first that is has all tables read."""
        known, here = self._session.conditions.is_rate_known, self._store.covered(layer.digest)
        if total(here) < toc_bytes and not known:
            # for now: the first bytes say more of the connection than of the link
            return True
        if not self.is_worth_reading(layer, toc_bytes):
            return True
        self.read_all()
        return False

    def is_worth_reading(self, layer: Descriptor, toc_bytes: int) -> bool:
        """Whether the TOC of a layer of the image is one of those that are, as the link is now."""
        now = self._session.conditions.now()
        if layer.digest not in self._image:  # it was whole, and its bytes turned out damaged
            self.expect([layer])
        with self._lock:
            self._image[layer.digest] = replace(self._image[layer.digest], toc_bytes=toc_bytes)
            image = dict(self._image)
        return layer.digest in worth_reading(image, self.toc_bytes, now.link, now.costs)

    def is_worth_reading_late(self, layer: Descriptor, layers: Iterable[Descriptor]) -> bool:
        """The same of a layer that comes whole, for what is left of all `layers` by now."""
        now = self._session.conditions.now()
        with self._lock:
            image = {
                one.digest: replace(lacking, blob_bytes=self._missing(one))
                for one in layers
                if (lacking := self._image.get(one.digest)) is not None
            }
            left = sum(one.toc_bytes for one in self._unread or ())
        return layer.digest in worth_reading(image, left, now.link, now.costs)

    def known_of(self, chunks: set[bytes]) -> set[bytes]:
        """The digests among these that the store has, in a blob of this pull or another one."""
        known = set(self._store.find_chunks(chunks))
        for table in self.tables:
            known |= table.known_of(chunks)
        return known

    def known_headers(self, keys: set[bytes]) -> set[bytes]:
        """The keys of header frames among these that the store has."""
        known = recorded_headers(self._store, keys)
        for table in self.tables:
            known |= table.known_of(keys)
        return known

    # ── rows ──

    def record_while(self, seconds: float) -> None:
        """Record some frames in the index, beside a download that takes so long anyway.

        Where all are, a table comes next that nothing had the time for.
        """
        if seconds < _RECORD_SECONDS or self._is_recording:
            return
        one = None
        if not self._unrecorded:
            costs = self._session.conditions.now().costs
            with self._lock:
                one = self._tables.take_one(seconds / _BESIDE / costs.table_byte)
            if one is None:
                return

        def record() -> None:
            if one is None:
                self._record()
            elif (table := self._read(one)) is not None:
                self._unrecorded.append(table)
            self._is_recording = False

        self._is_recording = True
        self._session.pool.submit("read", record)

    def record_all(self) -> None:
        """Record all frames: the lean way rests on rows."""
        while self._unrecorded:
            self._record()

    def _record(self) -> None:
        """Record some frames of the oldest TOC."""
        with self._lock:
            if self._unrecorded and not record_some(self._store, self._unrecorded[-1]):
                self._unrecorded.pop()

    def read_late(self, task: LayerTask, look_up: Callable[[LayerTask], None]) -> None:
        """Read the TOC of a layer that comes whole, and look up what stands in for its rest."""

        def read() -> None:
            with suppress(FormatError, IntegrityError, UnsupportedLayerError):
                if task.index is None:
                    task.set_index(read_index(self._store, task.layer, self._limits))
                look_up(task)

        self.read_all()
        self._session.pool.submit("read", read)
