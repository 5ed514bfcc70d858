"""The download: orders → bytes in the store, chunks checked as they land. Runs on the crew's fetch lane."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from zchunked.download.coalesce import Run, hull
from zchunked.download.ledger import TransferLedger
from zchunked.download.orders import Order
from zchunked.download.retry import RetryingSource, Stopped
from zchunked.download.watermarks import Watermarks
from zchunked.download.workers import WorkerPool
from zchunked.errors import IntegrityError, RangeIgnoredError
from zchunked.events import Arrived, Noted
from zchunked.interfaces import Emit, Pieces
from zchunked.layers.rebuild import are_chunks
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, merge, subtract, total
from zchunked.receipt import Accounts
from zchunked.store import Store
from zchunked.store.writer import Writer

# Chunk rows go in together: their places in the index are all over it, and each page is written anew.
_MANY_ROWS, _ROWS_SECONDS = 40_000, 10.0


class Downloader:
    """Works orders off through a crew. One per pull; its methods may be called from any worker."""

    def __init__(
        self,
        source: RetryingSource,
        store: Store,
        *,
        arrivals: Watermarks,
        accounts: Accounts,
        emit: Emit,
        stop: threading.Event,
    ) -> None:
        self._source, self._store, self._arrivals = source, store, arrivals
        self._deliveries = TransferLedger(accounts)
        self._emit, self._stop = emit, stop
        self._lock = threading.Lock()
        self._states: dict[Digest, _BlobState] = {}
        self._own = threading.local()
        self._writers: list[Writer] = []
        self._claims: dict[Digest, int] = {}  # blobs that some thread takes whole just now
        self._judges: Counter[Digest] = Counter()
        self._calm = threading.Condition(self._lock)
        self.without_ranges: set[Digest] = set()

    def order(self, crew: WorkerPool, order: Order) -> None:
        """Queue all runs. Whoever waits in `arrivals` is told as they land."""
        state = _BlobState(order, queue=order.runs)
        with self._lock:
            self._states[order.blob.digest] = state
        self._arrivals.expect(order.blob.digest, order.runs)
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
            self._arrivals.expect(order.blob.digest, sorted([*state.at_work, *runs]))
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

    def now(self, order: Order, *, may_grow: bool = True, came: Callable[[], None] | None = None) -> None:
        """Work an order off in the caller's thread, one run after the other, and commit it.

        `came` is called in it as bytes come, which nobody has checked.
        Where that would take the whole blob, and it may not grow to that, RangeIgnoredError is raised.
        """
        state = _BlobState(order, may_grow=may_grow, came=came)
        try:
            for run in order.runs:
                if not self._run(state, run):
                    self._arrivals.wait_for(order.blob.digest, order.blob.size)
        finally:
            self._close_own()

    def commit_early(self) -> None:
        """Keep what arrived safe from power loss, so that the workers need not stop reading for it."""
        with self._lock:
            writers = list(self._writers)
        for writer in writers:
            writer.commit_early()

    def close(self) -> None:
        """Commit whatever arrived. Call when no worker is left at work."""
        with self._lock:
            writers, self._writers = self._writers, []
        failure: Exception | None = None
        for writer in writers:
            try:
                writer.close()
            except Exception as error:  # noqa: BLE001 - the others still have bytes to commit
                failure = failure or error
        self.enter()
        if failure:
            raise failure

    def enter(self) -> None:
        """Promise the chunks that were checked so far: other images find them, whatever becomes of this pull."""
        with self._lock:
            states = list(self._states.values())
        for state in states:
            self._enter(state)

    # ── one run ──

    def _run_next(self, state: _BlobState) -> None:
        with state.lock:
            if not state.queue:
                return
            run = state.queue.popleft()
            state.at_work.append(run)
        if self._run(state, run):
            with state.lock:
                state.at_work.remove(run)
                self._arrivals.land(state.order.blob.digest, run)

    def _run(self, state: _BlobState, run: Run) -> bool:
        """False when somebody else takes the whole blob, and this with it."""
        blob = state.order.blob.digest
        if blob in self._claims:
            return False
        try:
            self._fetch(state, self._store.missing(blob, run))
        except RangeIgnoredError:
            if not self._claim_whole(state):
                return False
        except _TakenElsewhereError:
            return False
        me = threading.get_ident()
        if self._claims.get(blob) != me and not self._judge(state, run):
            return False
        if self._claims.get(blob) == me:
            self._finish_whole(state)
        if len(state.rows) >= _MANY_ROWS or time.monotonic() - state.entered > _ROWS_SECONDS:
            self._enter(state)
        return True

    def _judge(self, state: _BlobState, run: Run) -> bool:
        """Check what a run brought, and bring again what came damaged. False when somebody else takes the whole blob:
        whoever does that waits for those who judge, and then looks at what they have left.
        """
        blob = state.order.blob.digest
        with self._calm:
            if blob in self._claims:
                return False
            self._judges[blob] += 1
        try:
            if bad := self._check(state, hull(run)):
                self._refetch(state, bad)
        except _TakenElsewhereError:
            return False
        finally:
            with self._calm:
                self._judges[blob] -= 1
                self._calm.notify_all()
        return True

    def _wait_for_judges(self, blob: Digest) -> None:
        with self._calm:
            while self._judges[blob]:
                if self._stop.is_set():
                    raise Stopped
                self._calm.wait(0.2)

    def _fetch(self, state: _BlobState, spans: list[ByteRange]) -> None:
        if not spans:
            return
        order = state.order
        writer = self._writer(order.blob)
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
            if self._stop.is_set():
                raise Stopped
            return size

        try:
            self._source.fetch(order.blob, spans, keep)
        finally:
            self._deliveries.end(delivery)

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

    def _claim_whole(self, state: _BlobState) -> bool:
        """The host sends the whole blob or nothing: one worker takes it, for all runs. False if another one does."""
        blob, me = state.order.blob, threading.get_ident()
        if not state.may_grow:
            raise RangeIgnoredError(f"the host of layer {short(blob.digest)} serves no ranges")
        with self._lock:
            if (holder := self._claims.get(blob.digest)) is not None:
                return holder == me
            self._claims[blob.digest] = me
            self.without_ranges.add(blob.digest)
        state.order.want_all()
        self._emit(Noted(f"the host of layer {short(blob.digest)} serves no ranges: the layer comes whole"))
        return True

    def _finish_whole(self, state: _BlobState) -> None:
        blob = state.order.blob
        whole = ByteRange(0, blob.size)
        self._wait_for_judges(blob.digest)
        self._insist(state, self._store.missing(blob.digest, [whole]))
        if bad := self._check(state, whole):
            self._refetch(state, bad)
        self._arrivals.land_all(blob.digest)
        with self._lock:
            del self._claims[blob.digest]

    def _insist(self, state: _BlobState, spans: list[ByteRange]) -> None:
        """From a host without ranges too: then all of the blob comes, and what is here already is dropped."""
        try:
            self._fetch(state, spans)
        except RangeIgnoredError:
            if not self._claim_whole(state):
                raise _TakenElsewhereError from None
            self._fetch(state, [ByteRange(0, state.order.blob.size)])

    # ── checks ──

    def _check(self, state: _BlobState, run: ByteRange) -> list[int]:
        """Check the chunks that the run made complete; returns those that are wrong."""
        checks, blob = state.order.checks, state.order.blob.digest
        ours = []
        for chunk in checks.overlapping(run):
            start, end = checks.starts[chunk], checks.ends[chunk]
            is_shared = end > run.end or start < run.start  # with another run: the last to land checks it
            if not is_shared or self._store.covers(blob, ByteRange(start, end)):
                ours.append(chunk)
        with state.lock:
            ours = [chunk for chunk in ours if not state.checked[chunk]]
            for chunk in ours:
                state.checked[chunk] = 1
        asked = [(checks.starts[c], checks.ends[c], checks.sizes[c], checks.digests[c]) for c in ours]
        verdicts = are_chunks(self._store, blob, asked)
        rows = [
            (digest, start, end - start, size)
            for (start, end, size, digest), good in zip(asked, verdicts, strict=True)
            if good
        ]
        with state.lock:
            state.rows += rows
        return [chunk for chunk, good in zip(ours, verdicts, strict=True) if not good]

    def _refetch(self, state: _BlobState, bad: list[int]) -> None:
        """Once more, on a new request; wrong twice is the end."""
        checks, order = state.order.checks, state.order
        spans = [ByteRange(checks.starts[chunk], checks.ends[chunk]) for chunk in bad]
        self._store.evict(order.blob.digest, spans)
        self.take_back(order, spans)
        self._emit(Noted(f"layer {short(order.blob.digest)}: {len(bad)} of its chunks came damaged, fetching again"))
        for chunk in bad:
            state.checked[chunk] = 0
        for span in spans:
            self._insist(state, [span])
        for span in spans:
            if still := self._check(state, span):
                self._store.evict(order.blob.digest, [span])
                self.take_back(order, [span])
                digest = checks.digests[still[0]].hex()
                raise IntegrityError(
                    f"chunk at {span} of layer {order.blob.digest}: want sha256:{digest}, got something else twice; "
                    "the registry's copy is damaged or something on the way changes it"
                )

    def _enter(self, state: _BlobState) -> None:
        with state.lock:
            rows, state.rows = state.rows, []
            state.entered = time.monotonic()
        if rows:
            rows.sort()
            self._store.add_chunks(state.order.blob.digest, state.order.blob.size, rows)

    # ── writers: one per worker, for the blob it is at ──

    def _writer(self, blob: Descriptor) -> Writer:
        own: tuple[Digest, Writer] | None = getattr(self._own, "writer", None)
        if own is not None and own[0] == blob.digest and own[1] in self._writers:  # else closed with an earlier round
            return own[1]
        self._close_own()
        writer = self._store.writer(blob.digest, blob.size)
        self._own.writer = (blob.digest, writer)
        with self._lock:
            self._writers.append(writer)
        return writer

    def _close_own(self) -> None:
        own: tuple[Digest, Writer] | None = getattr(self._own, "writer", None)
        self._own.writer = None
        if own is not None:
            with self._lock:
                if own[1] not in self._writers:
                    return
                self._writers.remove(own[1])
            own[1].close()


class _TakenElsewhereError(Exception):
    """Another worker is taking the whole blob."""


class _BlobState:
    """An order at work; `lock` guards all that changes."""

    def __init__(
        self, order: Order, *, queue: Sequence[Run] = (), may_grow: bool = True, came: Callable[[], None] | None = None
    ) -> None:
        self.order, self.may_grow, self.came = order, may_grow, came
        self.queue = deque(queue)
        self.at_work: list[Run] = []
        self.lock = threading.Lock()
        self.checked = bytearray(len(order.checks.starts))
        self.rows: list[tuple[bytes, int, int, int]] = []
        self.entered = time.monotonic()
