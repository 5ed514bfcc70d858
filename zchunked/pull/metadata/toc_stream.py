"""Read a layer's table of contents as its bytes arrive, in turns with those of other layers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from zchunked.download.retries.retry import Stopped
from zchunked.download.workers import WorkerPool
from zchunked.errors import ZPullError
from zchunked.formats.annotations import Location
from zchunked.formats.tables.toc_reader import TocReader
from zchunked.layers.metadata import LayerIndex
from zchunked.oci.documents import Descriptor
from zchunked.pull.metadata.early_chunks import EarlyChunks
from zchunked.ranges import ByteRange
from zchunked.store import Store

_STRIDE = 128 << 10  # of a TOC: so much is worth reading at once
_TURN = 256 << 10  # of a TOC, read before it is the next one's turn
_LOOK_SECONDS = 0.02


@dataclass(slots=True, eq=False)
class TocStream:
    """Reads a TOC as its bytes arrive, on the worker of the read queue, in turns with other TOCs.

    `found` is given the index, once its digest is proved. It is not read as long as `skip` says so;
    then it `is_skipped`. `early` requests chunks meanwhile. `keeps_names`: a tar may be
    rebuilt.
    """

    store: Store
    layer: Descriptor
    location: Location
    toc: TocReader | None
    pool: WorkerPool
    stop: threading.Event
    found: Callable[[LayerIndex], None]
    skip: Callable[[], bool]
    early: EarlyChunks | None = None
    keeps_names: bool = True
    is_skipped: bool = field(init=False, default=False)
    _read_to: int = field(init=False)
    _asked: int = field(init=False)  # the read queue was given what is before it
    _looking: threading.Lock = field(init=False, default_factory=threading.Lock)
    _done: threading.Event = field(init=False, default_factory=threading.Event)
    _index: LayerIndex | None = field(init=False, default=None)
    _error: ZPullError | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._read_to = self._asked = self.location.toc.span.start

    def look(self) -> None:
        """Have read what has arrived, if that is enough. For the threads that fetch."""
        with self._looking:
            if self._asked == self.location.toc.span.end or not self._begin():
                return
            gaps = self.store.missing(
                self.layer.digest, [ByteRange(self._asked, self.location.toc.span.end)]
            )
            here = gaps[0].start if gaps else self.location.toc.span.end
            if here - self._asked >= _STRIDE or not gaps:
                self._ask(here)

    def _begin(self) -> bool:
        """Whether it is read. Call with the lock."""
        if self._asked == self.location.toc.span.start:
            self.is_skipped = self.skip()
        return not self.is_skipped

    def _ask(self, end: int) -> None:
        """Call with the lock."""
        is_at_it = self._read_to < self._asked
        self._asked = end
        if self._read_to < end and not is_at_it:
            self.pool.submit("read", self._read)

    def _read(self) -> None:
        """Read on for one turn."""
        # The lookup for early chunks has the processor for itself meanwhile
        if self.early is not None and not self.early.is_ready:
            self.stop.wait(_LOOK_SECONDS)
            self.pool.submit("read", self._read)
            return
        start, end = self._read_to, min(self._asked, self._read_to + _TURN)
        try:
            if self.toc is not None:
                self.toc.feed(self.store.read(self.layer.digest, start, end))
                if self.early is not None:
                    self.early.look(self.toc, self.pool)
                if end == self.location.toc.span.end:
                    toc = self.toc.finish()
                    if not self.keeps_names:
                        toc = replace(toc, names=[])  # of 300,000 files 33 MB
                    self._index = LayerIndex.of(self.layer, self.location, toc)
                    self.found(self._index)
        except ZPullError as error:  # any other ends the pull, where the pool is waited for
            self._error, self.toc = error, None
        with self._looking:
            self._read_to = end
            if end < self._asked:
                self.pool.submit("read", self._read)
        if end == self.location.toc.span.end:
            self.toc = None  # with its buffers: the tar-split may take a while
            self._done.set()

    def finish(self) -> LayerIndex | None:
        """The index, once all of it arrived; None if it is not worth being read.

        Raises what reading it raised, and Stopped when the pull has ended.
        """
        with self._looking:
            if not self._begin():
                return None
            self._ask(self.location.toc.span.end)
        while not self._done.wait(0.2):
            if self.stop.is_set():
                raise Stopped
        if self._error is not None:
            raise self._error
        assert self._index is not None
        return self._index
