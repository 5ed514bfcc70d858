"""Work download orders off through a pool of workers: queue their runs, share them out, commit what
arrived.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from zchunked.download.blob_download import BlobDownload, MakeRuns
from zchunked.download.orders import Order
from zchunked.download.receiver import Receiver
from zchunked.download.retrying_source import RetryingSource
from zchunked.download.run_fetcher import RunFetcher
from zchunked.download.watermarks import Watermarks
from zchunked.download.workers import WorkerPool
from zchunked.interfaces import Emit
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, total
from zchunked.receipt import Accounts
from zchunked.store import Store

# Neighbouring runs are asked for together while that takes no longer: a request costs 0.5 ms and a
# change of workers, so a cold pull of 352 MB over loopback takes 0.76 s instead of 0.85. Runs stay
# short themselves, for whoever proves or streams a blob over a slow link follows run by run.
_REQUEST_SECONDS, _LONGEST_REQUEST = 0.2, 16 << 20


class Downloader:
    """Works orders off through a pool of workers. One per pull; its methods may be called from any
    worker.
    """

    def __init__(
        self,
        source: RetryingSource,
        store: Store,
        *,
        accounts: Accounts,
        emit: Emit,
        stop: threading.Event,
        can_drain: Callable[[], bool] = lambda: False,
    ) -> None:
        """`can_drain`: whether reads of the source wait for nothing once `stop` is set."""
        self._source, self._store, self._stop = source, store, stop
        self.watermarks = Watermarks(stop)
        receiver = self._receiver = Receiver(source, store, accounts, emit, stop, can_drain)
        self._runs = RunFetcher(receiver, store, self.watermarks, emit, stop, self._share)
        self.without_ranges = self._runs.without_ranges
        """Blobs that turned out to come whole or not at all."""
        self.commit_early, self.settle, self.take_back = (
            receiver.commit_early,
            receiver.settle,
            receiver.take_back,
        )
        self._lock = threading.Lock()
        self._states: dict[Digest, BlobDownload] = {}
        self._rate = 0.0  # of the last run, in bytes per second

    def order(self, pool: WorkerPool, order: Order) -> None:
        """Queue all runs. Who waits in `watermarks` learns as they come."""
        whole = (ByteRange(0, order.blob.size),)
        if order.runs and order.wanted == [*whole] and not self._source.serves_ranges(order.blob):
            order.runs = [whole]  # each of several workers would be sent all of it
        state = BlobDownload(order, queue=order.runs)
        with self._lock:
            self._states[order.blob.digest] = state
        self.watermarks.expect(order.blob.digest, order.runs)
        jobs = pool.size("fetch")
        for _ in order.runs:
            pool.submit("fetch", lambda: self._run_next(state, jobs))

    def replan(self, pool: WorkerPool, order: Order, plan: MakeRuns) -> None:
        """Ask in another way for what is wanted of the runs that no worker has begun: `plan` says
        how.
        """
        blob = order.blob.digest
        if blob in self.without_ranges:
            return
        state = self._states[blob]
        jobs = pool.size("fetch")
        for _ in range(state.replan(plan, lambda runs: self.watermarks.expect(blob, runs))):
            pool.submit("fetch", lambda: self._run_next(state, jobs))

    def to_come(self) -> int:
        """Bytes that are ordered and not in the store yet."""
        return sum(state.to_come(self._store) for state in self._all())

    def _all(self) -> list[BlobDownload]:
        with self._lock:
            return list(self._states.values())

    def now(
        self,
        order: Order,
        *,
        may_grow: bool = True,
        came: Callable[[], None] | None = None,
        pool: WorkerPool | None = None,
        is_shared: bool = False,
    ) -> None:
        """Work an order off in the caller's thread, one run after the other, and commit it.

        `came` is called as bytes come, which nobody has checked. With a `pool`, whose worker the
        caller is, others help once a connection has broken, or from the start (`is_shared`); then
        `came` is called in their threads, too. Where that would take the whole blob, and it may not
        grow to that, RangeIgnoredError is raised.
        """
        state = BlobDownload(order, queue=order.runs, may_grow=may_grow, came=came, pool=pool)
        if pool is not None and is_shared:
            for _ in order.runs[1:]:
                pool.submit("fetch", lambda: self._help(state))
        try:
            while self._take_next(state):
                pass
            state.wait_for_help(self._stop)
            state.enter(self._store)
        except Exception as error:
            state.failure = error  # nobody need help any more
            raise
        finally:
            self._receiver.close_own()

    def _take_next(self, state: BlobDownload) -> bool:
        """Work off the next run of `now`; False when all have been begun."""
        run = state.take()
        if run is None:
            return False
        try:
            if not self._runs.run(state, run):
                self.watermarks.wait_for(state.order.blob.digest, state.order.blob.size)
        finally:
            with state.lock:
                state.at_work.remove(run)
                state.calm.notify_all()
        return True

    def _help(self, state: BlobDownload) -> None:
        with state.helping():
            self._take_next(state)

    def _share(self, state: BlobDownload, left: list[ByteRange]) -> list[ByteRange]:
        """A connection has broken with so much to go: leave some of it to other workers, and return
        the rest.
        """
        pool = state.pool
        if pool is None or self._runs.is_whole(state):
            return left
        helpers, own = state.leave(left, pool.size("fetch"))
        for _ in range(helpers):
            pool.submit("fetch", lambda: self._help(state))
        return own

    def close(self) -> None:
        """Commit whatever arrived. Call when no worker is left at work."""
        failure = self._receiver.close()
        self.enter()
        if failure:
            raise failure

    def enter(self) -> None:
        """Promise the chunks that were checked so far: other images find them, whatever becomes of
        this pull.
        """
        for state in self._all():
            state.enter(self._store)

    def _run_next(self, state: BlobDownload, jobs: int) -> None:
        run = state.take()
        if run is None:
            return  # taken together with the one before it
        size = min(self._rate * _REQUEST_SECONDS, _LONGEST_REQUEST)
        runs = state.take_more(run, size, jobs)
        whole = run if len(runs) == 1 else (ByteRange(run[0].start, runs[-1][0].end),)
        began = time.monotonic()
        if not self._runs.run(state, whole):
            return
        self._rate = total(whole) / max(time.monotonic() - began, 1e-6)
        with state.lock:
            for one in runs:
                state.at_work.remove(one)
                self.watermarks.complete(state.order.blob.digest, one)

    def report_corruption(self, blob: Digest, spans: Sequence[ByteRange]) -> None:
        """What came of these spans was wrong: where there is another source, the next fetch goes
        there.
        """
        self._source.report_corruption(blob, spans)
