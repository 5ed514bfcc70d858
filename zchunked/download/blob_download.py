"""One blob on its way: what of it is queued, at work and checked, and by whom."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from zchunked.download.coalesce import Run
from zchunked.download.orders import Order
from zchunked.download.workers import WorkerPool
from zchunked.layers.rebuild import are_chunks
from zchunked.ranges import ByteRange
from zchunked.store import Store

# Chunk rows go in together: their places in the index are all over it, and each page is written anew.
_MANY_ROWS, _ROWS_SECONDS = 40_000, 10.0


class BlobDownload:
    """An order at work; `lock` guards all that changes. Its methods are for any worker."""

    def __init__(
        self,
        order: Order,
        *,
        queue: Sequence[Run] = (),
        may_grow: bool = True,
        came: Callable[[], None] | None = None,
        crew: WorkerPool | None = None,
    ) -> None:
        """`may_grow`: to the whole blob, where the host has no ranges. `came` is called as bytes come. `crew`: who may
        help with what a broken connection left.
        """
        self.order, self.may_grow, self.came, self.crew = order, may_grow, came, crew
        self.queue = deque(queue)
        self.at_work: list[Run] = []
        self.lock = threading.Lock()
        self.calm = threading.Condition(self.lock)
        self.failure: Exception | None = None  # of a worker who helped
        self._checked = bytearray(len(order.checks.starts))
        self._rows: list[tuple[bytes, int, int, int]] = []
        self._entered = time.monotonic()

    def take(self) -> Run | None:
        """The next run, which is at work from now on; None when there is none left, or a worker has failed."""
        with self.lock:
            if self.failure is not None or not self.queue:
                return None
            run = self.queue.popleft()
            self.at_work.append(run)
            return run

    def check(self, store: Store, run: ByteRange) -> list[int]:
        """Check the chunks that the run made complete; returns those that are wrong."""
        checks, blob = self.order.checks, self.order.blob.digest
        ours = []
        for chunk in checks.overlapping(run):
            start, end = checks.starts[chunk], checks.ends[chunk]
            is_shared = end > run.end or start < run.start  # with another run: the last to land checks it
            if not is_shared or store.covers(blob, ByteRange(start, end)):
                ours.append(chunk)
        with self.lock:
            ours = [chunk for chunk in ours if not self._checked[chunk]]
            for chunk in ours:
                self._checked[chunk] = 1
        asked = [(checks.starts[c], checks.ends[c], checks.sizes[c], checks.digests[c]) for c in ours]
        verdicts = are_chunks(store, blob, asked)
        rows = [
            (digest, start, end - start, size)
            for (start, end, size, digest), good in zip(asked, verdicts, strict=True)
            if good
        ]
        with self.lock:
            self._rows += rows
        return [chunk for chunk, good in zip(ours, verdicts, strict=True) if not good]

    def uncheck(self, chunks: Sequence[int]) -> None:
        """They come again, and are checked again."""
        with self.lock:
            for chunk in chunks:
                self._checked[chunk] = 0

    @property
    def is_entry_due(self) -> bool:
        """Whether chunks wait to be entered: many, or for long."""
        return len(self._rows) >= _MANY_ROWS or time.monotonic() - self._entered > _ROWS_SECONDS

    def enter(self, store: Store) -> None:
        """Promise the chunks that were good so far."""
        with self.lock:
            rows, self._rows = self._rows, []
            self._entered = time.monotonic()
        if rows:
            rows.sort()
            store.add_chunks(self.order.blob.digest, self.order.blob.size, rows)
