"""The download: orders → bytes in the store, chunks checked as they land. Runs on the crew's fetch lane."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from zchunked.download.blob_download import BlobDownload
from zchunked.download.coalesce import Run, hull, shares
from zchunked.download.ledger import TransferLedger
from zchunked.download.orders import Order
from zchunked.download.retry import Stopped
from zchunked.download.retrying_source import RetryingSource
from zchunked.download.watermarks import Watermarks
from zchunked.download.whole_blob import WholeBlobs
from zchunked.download.workers import WorkerPool
from zchunked.download.writers import Writers
from zchunked.errors import IntegrityError, RangeIgnoredError
from zchunked.events import Arrived, Noted
from zchunked.interfaces import Emit, Pieces
from zchunked.oci.digest import Digest, short
from zchunked.ranges import ByteRange, merge, subtract, total
from zchunked.receipt import Accounts
from zchunked.store import Store

_DRAIN_SECONDS = 1.0  # at most: from a fast link more comes as long as we read


class Downloader:
    """Works orders off through a crew. One per pull; its methods may be called from any worker."""

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
        self._source, self._store = source, store
        self.arrivals = Watermarks(stop)
        self._deliveries = TransferLedger(accounts)
        self._emit, self._stop, self._can_drain = emit, stop, can_drain
        self._drained_by = math.inf
        self._lock = threading.Lock()
        self._states: dict[Digest, BlobDownload] = {}
        self._writers = Writers(store)
        self._whole = WholeBlobs(stop)
        self.without_ranges = self._whole.without_ranges

    def order(self, crew: WorkerPool, order: Order) -> None:
        """Queue all runs. Who waits in `arrivals` learns as they come."""
        whole = (ByteRange(0, order.blob.size),)
        if order.runs and order.wanted == [*whole] and not self._source.serves_ranges(order.blob):
            order.runs = [whole]  # each of several workers would be sent all of it
        state = BlobDownload(order, queue=order.runs)
        with self._lock:
            self._states[order.blob.digest] = state
        self.arrivals.expect(order.blob.digest, order.runs)
        for _ in order.runs:
            crew.submit("fetch", lambda: self._run_next(state))

    def replan(self, crew: WorkerPool, order: Order, plan: Callable[[list[ByteRange]], list[Run]]) -> None:
        """Ask in another way for what is wanted of the runs that nobody has begun: `plan` says how."""
        if order.blob.digest in self.without_ranges:
            return
        state = self._states[order.blob.digest]
        with state.lock:
            left = merge([span for run in state.queue for span in run])
            before, runs = len(state.queue), plan(subtract(order.wanted, subtract(order.wanted, left)))
            state.queue = deque(runs)
            self.arrivals.expect(order.blob.digest, sorted([*state.at_work, *runs]))
        for _ in range(len(runs) - before):
            crew.submit("fetch", lambda: self._run_next(state))

    def to_come(self) -> int:
        """Bytes that are ordered and not here yet."""
        with self._lock:
            states = list(self._states.values())
        size = 0
        for state in states:
            with state.lock:
                queue, at_work = list(state.queue), list(state.at_work)
            size += sum(map(total, queue))
            size += sum(total(self._store.missing(state.order.blob.digest, run)) for run in at_work)
        return size

    def now(
        self,
        order: Order,
        *,
        may_grow: bool = True,
        came: Callable[[], None] | None = None,
        crew: WorkerPool | None = None,
        is_shared: bool = False,
    ) -> None:
        """Work an order off in the caller's thread, one run after the other, and commit it.

        `came` is called as bytes come, which nobody has checked. With a `crew`, whose worker the caller is, others
        help once a connection has broken, or from the start (`is_shared`); then `came` is called in their threads, too.
        Where that would take the whole blob, and it may not grow to that, RangeIgnoredError is raised.
        """
        state = BlobDownload(order, queue=order.runs, may_grow=may_grow, came=came, crew=crew)
        if crew is not None and is_shared:
            for _ in order.runs[1:]:
                crew.submit("fetch", lambda: self._help(state))
        try:
            while self._take_next(state):
                pass
            self._wait_for_help(state)
            state.enter(self._store)
        except Exception as error:
            state.failure = error  # nobody need help any more
            raise
        finally:
            self._writers.close_own()

    def _take_next(self, state: BlobDownload) -> bool:
        """Work off the next run of `now`; False when all have been begun."""
        run = state.take()
        if run is None:
            return False
        try:
            if not self._run(state, run):
                self.arrivals.wait_for(state.order.blob.digest, state.order.blob.size)
        finally:
            with state.lock:
                state.at_work.remove(run)
                state.calm.notify_all()
        return True

    def _help(self, state: BlobDownload) -> None:
        """What fails is the failure of whoever is helped."""
        try:
            self._take_next(state)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - it is raised again where the order is worked off
            with state.lock:
                state.failure = state.failure or error

    def _wait_for_help(self, state: BlobDownload) -> None:
        with state.lock:
            while state.at_work and state.failure is None:
                if self._stop.is_set():
                    raise Stopped
                state.calm.wait(0.2)
            if state.failure is not None:
                raise state.failure

    def _share(self, state: BlobDownload, left: list[ByteRange]) -> list[ByteRange]:
        """A connection has broken with so much to go: leave some of it to other workers, and return the rest."""
        if state.crew is None or self._whole.is_mine(state.order.blob.digest):
            return left
        jobs = state.crew.size("fetch")
        first, *others = shares(left, jobs)
        with state.lock:
            state.queue.extend(others)
        for _ in others:
            state.crew.submit("fetch", lambda: self._help(state))
        return list(first)

    def commit_early(self) -> None:
        """Keep what arrived safe from power loss, so that the workers need not stop reading for it."""
        self._writers.commit_early()

    def close(self) -> None:
        """Commit whatever arrived. Call when no worker is left at work."""
        failure = self._writers.close()
        self.enter()
        if failure:
            raise failure

    def enter(self) -> None:
        """Promise the chunks that were checked so far: other images find them, whatever becomes of this pull."""
        with self._lock:
            states = list(self._states.values())
        for state in states:
            state.enter(self._store)

    # ── one run ──

    def _run_next(self, state: BlobDownload) -> None:
        run = state.take()
        if run is not None and self._run(state, run):
            with state.lock:
                state.at_work.remove(run)
                self.arrivals.complete(state.order.blob.digest, run)

    def _run(self, state: BlobDownload, run: Run) -> bool:
        """False when somebody else takes the whole blob, and this with it."""
        blob = state.order.blob.digest
        if self._whole.is_taken(blob):
            return False
        try:
            self._fetch(state, self._store.missing(blob, run))
        except RangeIgnoredError:
            if not self._claim_whole(state):
                return False
        except _TakenElsewhereError:
            return False
        if not self._whole.is_mine(blob) and not self._judge(state, run):
            return False
        if self._whole.is_mine(blob):
            self._finish_whole(state)
        if state.is_entry_due:
            state.enter(self._store)
        return True

    def _judge(self, state: BlobDownload, run: Run) -> bool:
        """Check what a run brought, and bring again what came damaged. False when somebody else takes the whole blob:
        whoever does that waits for those who judge, and then looks at what they have left.
        """
        with self._whole.judging(state.order.blob.digest) as may_judge:
            if not may_judge:
                return False
            try:
                if bad := state.check(self._store, hull(run)):
                    self._refetch(state, bad)
            except _TakenElsewhereError:
                return False
        return True

    def _fetch(self, state: BlobDownload, spans: list[ByteRange]) -> None:
        if not spans:
            return
        order = state.order
        writer = self._writers.of(order.blob)
        delivery = self._deliveries.begin(order)
        asked = ByteRange(spans[0].start, spans[-1].end)

        def keep(haul: Pieces) -> int:
            is_more = any(at < asked.start or at + len(piece) > asked.end for at, piece in haul)
            if is_more and not self._claim_whole(state):
                raise _TakenElsewhereError
            new = writer.write_many(haul)
            size = total(new)
            delivery.take(sum([len(piece) for _, piece in haul]), new)
            if size:
                self._emit(Arrived(size))
            if state.came is not None:
                state.came()
            if self._stop.is_set() and not self._may_drain():
                raise Stopped
            return size

        try:
            self._source.fetch(order.blob, spans, keep, lambda left: self._share(state, left))
        finally:
            self._deliveries.end(delivery)

    def _may_drain(self) -> bool:
        """After the stop: whether there is time left for what was received already, which would come twice."""
        now = time.monotonic()
        self._drained_by = min(self._drained_by, now + _DRAIN_SECONDS)
        return self._can_drain() and now < self._drained_by

    def settle(self) -> None:
        """Book what came so far of downloads that hang."""
        self._deliveries.settle()

    def take_back(self, order: Order, spans: Sequence[ByteRange]) -> int:
        """What came of these spans was wrong: it becomes waste. Returns how much of them this pull had brought."""
        taken = self._deliveries.take_back(order, spans)
        self.distrust(order.blob.digest, taken)
        return total(taken)

    def distrust(self, blob: Digest, spans: Sequence[ByteRange]) -> None:
        """What came of these spans was wrong: where there is another source, the next fetch goes there."""
        self._source.distrust(blob, spans)

    def _claim_whole(self, state: BlobDownload) -> bool:
        """The host sends the whole blob or nothing: one worker takes it, for all runs. False if another one does."""
        blob = state.order.blob
        if not state.may_grow:
            raise RangeIgnoredError(f"the host of layer {short(blob.digest)} serves no ranges")
        if self._store.covers(blob.digest, ByteRange(0, blob.size)):
            return False  # another worker has taken it meanwhile
        if is_new := self._whole.claim(blob.digest):
            state.order.want_all()
            self._emit(Noted(f"the host of layer {short(blob.digest)} serves no ranges: the layer comes whole"))
        return is_new is not False

    def _finish_whole(self, state: BlobDownload) -> None:
        blob = state.order.blob
        whole = ByteRange(0, blob.size)
        self._whole.wait_for_judges(blob.digest)
        self._insist(state, self._store.missing(blob.digest, [whole]))
        if bad := state.check(self._store, whole):
            self._refetch(state, bad)
        self.arrivals.complete_all(blob.digest)
        self._whole.release(blob.digest)

    def _insist(self, state: BlobDownload, spans: list[ByteRange]) -> None:
        """From a host without ranges too: then all of the blob comes, and what is here already is dropped."""
        try:
            self._fetch(state, spans)
        except RangeIgnoredError:
            if not self._claim_whole(state):
                raise _TakenElsewhereError from None
            self._fetch(state, [ByteRange(0, state.order.blob.size)])

    # ── what came damaged ──

    def _refetch(self, state: BlobDownload, bad: list[int]) -> None:
        """Once more, on a new request; wrong twice is the end."""
        checks, order = state.order.checks, state.order
        spans = [ByteRange(checks.starts[chunk], checks.ends[chunk]) for chunk in bad]
        self._store.distrust(order.blob.digest, spans)
        self.take_back(order, spans)
        self._emit(Noted(f"layer {short(order.blob.digest)}: {len(bad)} of its chunks came damaged, fetching again"))
        state.uncheck(bad)
        for span in spans:
            self._insist(state, [span])
        for span in spans:
            if still := state.check(self._store, span):
                self._store.distrust(order.blob.digest, [span])
                self.take_back(order, [span])
                digest = checks.digests[still[0]].hex()
                raise IntegrityError(
                    f"chunk at {span} of layer {order.blob.digest}: want sha256:{digest}, got something else twice; "
                    "the registry's copy is damaged or something on the way changes it"
                )


class _TakenElsewhereError(Exception):
    """Another worker is taking the whole blob."""
