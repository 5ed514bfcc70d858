"""State of one blob's download: runs queued and running, chunks checked and recorded."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from zchunked.download.blobs.arrival import BlobArrival
from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.download.coalesce import Run, shares
from zchunked.download.retries.retry import Stopped
from zchunked.download.workers import WorkerPool
from zchunked.ranges import ByteRange, merge, subtract, total
from zchunked.store import Store

# Chunk rows go in together: their places in the index are all over it, and each page is written
# anew.
_MANY_ROWS, _ROWS_SECONDS = 40_000, 10.0
MakeRuns = Callable[[list[ByteRange]], list[Run]]
"""How to ask for these spans."""


class BlobDownload:
    """A fetch plan under way; `lock` guards all that changes. Its methods are for any worker."""

    def __init__(
        self,
        plan: FetchPlan,
        arrival: BlobArrival,
        *,
        queue: Sequence[Run] = (),
        may_grow: bool = True,
        on_bytes: Callable[[], None] | None = None,
        pool: WorkerPool | None = None,
    ) -> None:
        """`may_grow`: to the whole blob, where the host serves no ranges.

        `on_bytes` is called as bytes arrive. `pool`: workers that may help with what a broken
        connection left.
        """
        self.plan, self.arrival, self.may_grow = plan, arrival, may_grow
        self.on_bytes, self.pool = on_bytes, pool
        self.queue = deque(queue)
        self.running: list[Run] = []
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.failure: Exception | None = None  # of a worker that helped
        self._checked = bytearray(len(plan.checks.starts))
        self._rows: list[tuple[bytes, int, int, int]] = []
        self._recorded_at = time.monotonic()

    def take(self) -> Run | None:
        """Start the next run; None when there is none left, or a worker has failed."""
        with self.lock:
            if self.failure is not None or not self.queue:
                return None
            run = self.queue.popleft()
            self.running.append(run)
            return run

    def take_more(self, first: Run, size: float, jobs: int) -> list[Run]:
        """`first`, which was taken, and queued runs that continue it without a gap.

        They have at most `size` bytes together, and are at most one worker's share of the queue.
        """
        taken = [first]
        with self.lock:
            left = size - total(first)
            for _ in range(len(self.queue) // jobs):
                before, after = taken[-1], self.queue[0]
                left -= total(after)
                is_next = len(before) == len(after) == 1 and before[0].end == after[0].start
                if left < 0 or not is_next:
                    break
                taken.append(self.queue.popleft())
                self.running.append(after)
        return taken

    def replan(self, make_runs: MakeRuns) -> int:
        """Replace the queued runs; returns how many more there are."""
        wanted = self.plan.wanted
        with self.lock:
            left = merge([span for run in self.queue for span in run])
            before, runs = len(self.queue), make_runs(subtract(wanted, subtract(wanted, left)))
            self.queue = deque(runs)
            self.arrival.watermark.expect(sorted([*self.running, *runs]))  # while none can end
            return len(runs) - before

    def leave(self, left: list[ByteRange], jobs: int) -> tuple[int, list[ByteRange]]:
        """Queue shares of what a broken connection left: their number, and the caller's share."""
        first, *others = shares(left, jobs)
        with self.lock:
            self.queue.extend(others)
        return len(others), list(first)

    def bytes_left(self, store: Store) -> int:
        """Bytes that are planned and not in the store yet."""
        with self.lock:
            queue, running = list(self.queue), list(self.running)
        return sum(map(total, queue)) + sum(
            total(store.missing(self.plan.blob.digest, run)) for run in running
        )

    @contextmanager
    def helping(self) -> Iterator[None]:
        """A failure inside is raised in the worker that is helped."""
        try:
            yield
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - raised again by `wait_for_help`
            with self.lock:
                self.failure = self.failure or error

    def wait_for_help(self, stop: threading.Event) -> None:
        """Wait until no run is running.

        Raises the failure of a worker that helped, Stopped when the pull has ended.
        """
        with self.lock:
            while self.running and self.failure is None:
                if stop.is_set():
                    raise Stopped
                self.changed.wait(0.2)
            if self.failure is not None:
                raise self.failure

    def check(self, store: Store, run: ByteRange) -> list[int]:
        """Check the chunks that the run made complete; returns those that are wrong."""
        checks, blob = self.plan.checks, self.plan.blob.digest
        ours = []
        for chunk in checks.overlapping(run):
            start, end = checks.starts[chunk], checks.ends[chunk]
            # shared with another run: the one that arrives last checks it
            is_shared = end > run.end or start < run.start
            if not is_shared or store.covers(blob, ByteRange(start, end)):
                ours.append(chunk)
        with self.lock:
            ours = [chunk for chunk in ours if not self._checked[chunk]]
            for chunk in ours:
                self._checked[chunk] = 1
        if not ours:
            return []
        from zchunked.layers.chunk_data import are_chunks  # noqa: PLC0415 - whole blobs have none

        asked = [
            (checks.starts[c], checks.ends[c], checks.sizes[c], checks.digests[c]) for c in ours
        ]
        verdicts = are_chunks(store, blob, asked)
        rows = [
            (digest, start, end - start, size)
            for (start, end, size, digest), is_right in zip(asked, verdicts, strict=True)
            if is_right
        ]
        with self.lock:
            self._rows += rows
        return [chunk for chunk, is_right in zip(ours, verdicts, strict=True) if not is_right]

    def uncheck(self, chunks: Sequence[int]) -> None:
        """Have chunks checked again, when they arrive once more."""
        with self.lock:
            for chunk in chunks:
                self._checked[chunk] = 0

    @property
    def is_record_due(self) -> bool:
        """Whether many checked chunks wait to be recorded, or some for long."""
        return len(self._rows) >= _MANY_ROWS or time.monotonic() - self._recorded_at > _ROWS_SECONDS

    def record(self, store: Store) -> None:
        """Record the chunks that were right so far."""
        with self.lock:
            rows, self._rows = self._rows, []
            self._recorded_at = time.monotonic()
        if rows:
            rows.sort()
            store.add_chunks(self.plan.blob.digest, self.plan.blob.size, rows)
