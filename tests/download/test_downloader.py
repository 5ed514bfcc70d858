"""The download itself, against sources in memory that break, stop or send what nobody asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.download.coalesce import shares
from zchunked.download.downloader import Downloader
from zchunked.download.retries.retry import Chameleon
from zchunked.download.retries.retrying_source import RetryingSource
from zchunked.download.workers import WorkerPool
from zchunked.errors import AccessDeniedError, RangeIgnoredError, TransientError
from zchunked.events import Arrived, Event
from zchunked.interfaces import Document, Pieces
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.options import Patience
from zchunked.ranges import ByteRange, total
from zchunked.receipt import Accounts
from zchunked.store import Store

STEP = 64 << 10
BLOB = bytes(range(256)) * (1 << 14)  # 4 MiB
LAYER = Descriptor("", Digest("sha256:" + "3" * 64), len(BLOB))
WHOLE = [ByteRange(0, len(BLOB))]
TAIL = [ByteRange(1, len(BLOB))]


class Breaking:
    """Each request brings 64 KiB, then its connection breaks.

    Counts how many are served at the same time.
    """

    def __init__(self, meet: int = 0, error: Exception | None = None) -> None:
        """`meet`: requests behind the first one wait until so many are there."""
        self.meeting = threading.Barrier(meet) if meet else None
        self.error = error
        self.threads: set[int] = set()
        self.asked: list[ByteRange] = []
        self.sent: list[ByteRange] = []
        self._lock = threading.Lock()

    def manifest(self, digest: Digest | None) -> Document:
        raise NotImplementedError

    def spans_per_request(self, blob: Descriptor) -> int:
        return 1

    def close(self) -> None: ...

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        (span,) = spans
        with self._lock:
            self.threads.add(threading.get_ident())
            self.asked.append(span)
            is_first = len(self.asked) == 1
        if self.meeting is not None and not is_first and not self.meeting.broken:
            try:
                self.meeting.wait(10)
                self.meeting.abort()  # once is enough
            except threading.BrokenBarrierError:
                pass
        if self.error is not None and not is_first:
            raise self.error
        end = min(span.start + STEP, span.end)
        self.sent.append(ByteRange(span.start, end))
        yield [(span.start, BLOB[span.start : end])]
        if end < span.end:
            raise TransientError("reset")


class Bench:
    def __init__(
        self, folder: Path, source: Breaking, jobs: int = 4, *, drains: bool = False
    ) -> None:
        self.stop = threading.Event()
        self.events: list[Event] = []
        self.chameleon = Chameleon(Patience(), jobs, self.events.append, self.stop)
        self.store = Store(folder)
        self.downloader = Downloader(
            RetryingSource(source, self.chameleon),
            self.store,
            accounts=Accounts(),
            emit=self.events.append,
            stop=self.stop,
            can_drain=lambda: drains,
        )
        self.pool = WorkerPool({"fetch": jobs}, self.stop)

    def now(self, spans: Sequence[ByteRange] = WHOLE, *, may_grow: bool = True) -> None:
        """One run, the whole blob if not told otherwise, in a worker that others may help."""
        plan = FetchPlan(LAYER, [tuple(spans)], [*spans], [*spans])
        with self.pool:
            try:
                self.pool.submit(
                    "fetch", lambda: self.downloader.fetch(plan, pool=self.pool, may_grow=may_grow)
                )
                self.pool.wait(lambda: None)
            finally:
                self.stop.set()
        self.downloader.close()

    def has_all(self) -> bool:
        return self.store.read(LAYER.digest, 0, LAYER.size) == BLOB


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_what_is_left_of_a_broken_request_comes_over_several_connections(
    jobs: int, tmp_path: Path
) -> None:
    source = Breaking(meet=jobs if jobs > 1 else 0)
    bench = Bench(tmp_path, source, jobs)
    bench.now()
    assert bench.has_all()
    assert len(source.threads) == jobs
    assert total(source.sent) == len(BLOB), "each byte is asked for by one worker alone"


def test_a_link_that_holds_sees_one_request(tmp_path: Path) -> None:
    class Holds(Breaking):
        def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
            self.asked += spans
            yield [(0, BLOB)]

    source = Holds()
    bench = Bench(tmp_path, source)
    bench.now()
    assert source.asked == WHOLE
    assert bench.has_all()


@pytest.mark.parametrize(
    "error", [AccessDeniedError("no more"), RangeIgnoredError("no more")], ids=["403", "200"]
)
def test_what_a_helper_fails_with_is_the_failure_of_whom_it_helps(
    error: Exception, tmp_path: Path
) -> None:
    with pytest.raises(type(error)):
        Bench(tmp_path, Breaking(meet=2, error=error)).now(TAIL, may_grow=False)


@pytest.mark.parametrize("jobs", [1, 3, 8])
@pytest.mark.parametrize("size", [1, 300 << 10, 9 << 20])
def test_shares_cover_what_is_left_and_are_not_short(size: int, jobs: int) -> None:
    left = [ByteRange(10, 10 + size), ByteRange(20 + size, 50 + size)]
    found = shares(left, jobs)
    assert found[0][0].start == 10
    assert sum(map(total, found)) == total(left)
    assert len(found) <= jobs + 1
    assert all(total(run) >= 128 << 10 for run in found[:-1])


class Stopped(Breaking):
    """The pull is stopped behind the first 64 KiB; the rest has been received by then."""

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        for at in range(0, len(BLOB), STEP):
            self.asked.append(ByteRange(at, at + STEP))
            yield [(at, BLOB[at : at + STEP])]
            self.bench.stop.set()

    bench: Bench


@pytest.mark.parametrize("drains", [False, True])
def test_what_was_received_before_the_stop_is_kept_where_the_source_waits_for_nothing(
    drains: bool, tmp_path: Path
) -> None:
    source = Stopped()
    bench = source.bench = Bench(tmp_path, source, 1, drains=drains)
    bench.now()
    assert bench.has_all() if drains else len(source.asked) == 2


def test_a_link_that_never_falls_silent_is_drained_for_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zchunked.download.receiver._DRAIN_SECONDS", 0.0)
    source = Stopped()
    source.bench = Bench(tmp_path, source, 1, drains=True)
    source.bench.now()
    assert len(source.asked) == 2


def test_a_stop_is_no_failure_to_be_forgiven(tmp_path: Path) -> None:
    class Breaks(Breaking):
        def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
            bench.stop.set()
            yield [(0, BLOB[:STEP])]
            raise TransientError("no more was received")

    bench = Bench(tmp_path, Breaks(), 1, drains=True)
    bench.now()
    assert bench.chameleon.retries == 0
    assert bench.events == [Arrived(STEP)]
