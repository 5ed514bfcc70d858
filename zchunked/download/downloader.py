"""Download the runs of fetch plans with a pool of workers, and commit what arrived."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from zchunked.download.blobs.arrival import Arrivals
from zchunked.download.blobs.blob_download import BlobDownload, MakeRuns
from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.download.receiver import Receiver
from zchunked.download.retries.retrying_source import RetryingSource
from zchunked.download.run_fetcher import RunFetcher
from zchunked.download.workers import WorkerPool
from zchunked.interfaces import Emit
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, total
from zchunked.receipt import Accounts
from zchunked.store import Store

# Neighbouring runs are asked for together while that takes no longer: a request costs 0.5 ms and a
# change of workers, so a cold pull of 352 MB over loopback takes 0.76 s instead of 0.85. Runs stay
# short themselves: over a slow link, proofs and streams of a blob follow run by run.
_REQUEST_SECONDS, _LONGEST_REQUEST = 0.2, 16 << 20


class Downloader:
    """Carries out fetch plans. One per pull; any worker may call its methods."""

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
        """`can_drain`: whether the source only returns received bytes once `stop` is set."""
        self._source, self._store, self._stop = source, store, stop
        self.arrivals = Arrivals(stop)
        receiver = self._receiver = Receiver(source, store, accounts, emit, stop, can_drain)
        self._runs = RunFetcher(receiver, store, emit, self._share)
        self.commit_early, self.settle = receiver.commit_early, receiver.settle
        self._lock = threading.Lock()
        self._states: dict[Digest, BlobDownload] = {}
        self._rate = 0.0  # of the last run, in bytes per second

    def submit(self, pool: WorkerPool, plan: FetchPlan) -> None:
        """Queue all runs of the plan; the blob's watermark rises as they arrive."""
        whole = (ByteRange(0, plan.blob.size),)
        if plan.runs and plan.wanted == [*whole] and not self._source.serves_ranges(plan.blob):
            plan.runs = [whole]  # each of several workers would be sent all of it
        state = BlobDownload(plan, self.arrivals.of(plan.blob.digest), queue=plan.runs)
        with self._lock:
            self._states[plan.blob.digest] = state
        state.arrival.watermark.expect(plan.runs)
        jobs = pool.size("fetch")
        for _ in plan.runs:
            pool.submit("fetch", lambda: self._run_next(state, jobs))

    def replan(self, pool: WorkerPool, plan: FetchPlan, make_runs: MakeRuns) -> None:
        """Request what is wanted of the runs that no worker has begun in another way."""
        state = self._states[plan.blob.digest]
        if state.arrival.claim.was_made:
            return
        jobs = pool.size("fetch")
        for _ in range(state.replan(make_runs)):
            pool.submit("fetch", lambda: self._run_next(state, jobs))

    def bytes_left(self) -> int:
        """Bytes that are planned and not in the store yet."""
        return sum(state.bytes_left(self._store) for state in self._all())

    def _all(self) -> list[BlobDownload]:
        with self._lock:
            return list(self._states.values())

    def fetch(
        self,
        plan: FetchPlan,
        *,
        may_grow: bool = True,
        on_bytes: Callable[[], None] | None = None,
        pool: WorkerPool | None = None,
        is_shared: bool = False,
    ) -> None:
        """Fetch a plan in the caller's thread, one run after the other, and commit it.

        `on_bytes` is called as bytes arrive, unchecked. With a `pool`, whose worker the caller is,
        others help once a connection has broken, or from the start (`is_shared`); then `on_bytes`
        is called in their threads, too. Where the host serves no ranges and `may_grow` is false,
        RangeIgnoredError is raised instead of fetching the whole blob.
        """
        state = BlobDownload(
            plan,
            self.arrivals.of(plan.blob.digest),
            queue=plan.runs,
            may_grow=may_grow,
            on_bytes=on_bytes,
            pool=pool,
        )
        if pool is not None and is_shared:
            for _ in plan.runs[1:]:
                pool.submit("fetch", lambda: self._help(state))
        try:
            while self._take_next(state):
                pass
            state.wait_for_help(self._stop)
            state.record(self._store)
        except Exception as error:
            state.failure = error  # helpers stop
            raise
        finally:
            self._receiver.close_own()

    def _take_next(self, state: BlobDownload) -> bool:
        """Fetch the next run of `fetch`; False when all have been begun."""
        run = state.take()
        if run is None:
            return False
        try:
            if not self._runs.run(state, run):
                state.arrival.watermark.wait_for(state.plan.blob.size)
        finally:
            with state.lock:
                state.running.remove(run)
                state.changed.notify_all()
        return True

    def _help(self, state: BlobDownload) -> None:
        with state.helping():
            self._take_next(state)

    def _share(self, state: BlobDownload, left: list[ByteRange]) -> list[ByteRange]:
        """Leave some of what a broken connection left to other workers; returns the rest."""
        pool = state.pool
        if pool is None or state.arrival.claim.is_mine:
            return left
        helpers, own = state.leave(left, pool.size("fetch"))
        for _ in range(helpers):
            pool.submit("fetch", lambda: self._help(state))
        return own

    def close(self) -> None:
        """Commit what arrived. Call when no worker runs."""
        failure = self._receiver.close()
        self.record_chunks()
        if failure:
            raise failure

    def record_chunks(self) -> None:
        """Record the chunks checked so far: other images find them even if this pull fails."""
        for state in self._all():
            state.record(self._store)

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
                state.running.remove(one)
                state.arrival.watermark.complete(one)

    def take_back(self, plan: FetchPlan, spans: Sequence[ByteRange]) -> int:
        """Book what arrived of these spans as waste; another source, if any, is asked next.

        Returns how many bytes of them this pull had fetched.
        """
        return self._receiver.take_back(plan, self.arrivals.of(plan.blob.digest), spans)
