"""What overlaps: chunks come while metadata is still on its way.

Requests are made anew as the link changes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.build.cut import every
from tests.helpers.build.front import Entry, Image, chunked_layer, image, make_tar
from tests.helpers.build.layers import Layer
from tests.helpers.harness.hostile import Bench, bench, flips
from tests.helpers.harness.pulls import AMD64, IMPATIENT, open_store
from tests.helpers.servers.memory import Break, MemorySource
from zchunked.download.blobs.arrival import BlobArrival
from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.download.coalesce import GapPolicy, Link, Run, runs_for
from zchunked.download.downloader import Downloader
from zchunked.download.retries.retry import Chameleon
from zchunked.download.retries.retrying_source import RetryingSource
from zchunked.download.workers import WorkerPool
from zchunked.errors import IntegrityError, NotFoundError, RefusedError, TransientError
from zchunked.events import Arrived, Event, Planned
from zchunked.formats.tables.toc_reader import TocReader
from zchunked.interfaces import Pieces
from zchunked.layers.metadata import read_index_and_tarsplit
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.oci.reference import parse_image
from zchunked.options import GapOptions, Options, Patience
from zchunked.pull.layer import LayerTask
from zchunked.pull.metadata import toc_stream
from zchunked.pull.origin import Origin
from zchunked.pull.planning.estimates import LinkConditions
from zchunked.pull.planning.planner import Planner
from zchunked.pull.pull import Pull
from zchunked.ranges import ByteRange, merge, subtract, total
from zchunked.receipt import Accounts, LayerEntry, Receipt
from zchunked.sources.traffic import Traffic

_LONG = 20.0  # seconds: whoever waits so long waits in vain


def noise(seed: int, size: int = 3000) -> bytes:
    return random.Random(seed).randbytes(size)


def layer(*seeds: int, name: str = "f") -> Layer:
    """Of one file for each seed, which make its content."""
    return chunked_layer(make_tar([Entry(f"{name}{seed}", noise(seed)) for seed in seeds]))


def is_chunk_of(one: Layer, spans: tuple[ByteRange, ...]) -> bool:
    assert one.toc_at is not None
    return spans[0].start < one.toc_at.offset - 8


def held_back(one: Layer, start: int, end: int, until: Callable[[], bool]) -> Break:
    """Pieces of the layer's blob that begin in [start, end) wait for that."""

    def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
        if blob.digest == one.digest and start <= at < end:
            waited = threading.Event()
            for _ in range(int(_LONG * 100)):
                if until():
                    return piece
                waited.wait(0.01)
            pytest.fail("nobody asked for anything meanwhile")
        return piece

    return change


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Bench]:
    """A store that has some chunks of what follows, so that nothing comes whole."""
    with bench(tmp_path, "cold") as on:
        on.pull(image([layer(*range(0, 60, 2))]), "example.com/old:t")
        yield on


NEW = (layer(*range(60)), layer(*range(40, 90), name="g"))
"""Every other file of the first is in the warm store, and some of the second."""


def test_chunks_of_the_first_layer_come_while_the_toc_of_the_second_is_on_its_way(
    warm: Bench,
) -> None:
    first, second = NEW
    assert second.toc_at is not None
    source = MemorySource(image([*NEW]), piece=100)

    def first_is_asked_for() -> bool:
        return any(
            digest == first.digest and is_chunk_of(first, spans) for digest, spans in source.asked
        )

    source.change = held_back(second, second.toc_at.offset, second.toc_at.end, first_is_asked_for)
    warm.is_right(warm.pull_from(source), image([*NEW]))


def test_chunks_of_a_layer_come_while_its_tarsplit_is_on_its_way(warm: Bench) -> None:
    one = NEW[0]
    assert one.tar_split_at is not None
    source = MemorySource(image([one]), piece=100)

    def is_asked_for() -> bool:
        return any(
            is_chunk_of(one, spans) for digest, spans in source.asked if digest == one.digest
        )

    source.change = held_back(one, one.tar_split_at.offset, one.tar_split_at.end, is_asked_for)
    outcome = warm.pull_from(source)
    warm.is_right(outcome, image([one]))
    assert outcome.receipt.bytes.wasted == 0


def test_a_toc_is_read_while_it_is_on_its_way(warm: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one = NEW[0]
    assert one.toc_at is not None
    # of an unknown one the first MiB has to tell it
    warm.store.remember_measures("link example.com", {"rate": 1e6})
    monkeypatch.setattr(toc_stream, "_STRIDE", 100)
    was_read: list[int] = []
    feed = TocReader.feed

    def watched(self: TocReader, piece: bytes) -> None:
        was_read.append(len(piece))
        feed(self, piece)

    monkeypatch.setattr(TocReader, "feed", watched)
    source = MemorySource(image([one]), piece=100)
    end = one.toc_at.end
    source.change = held_back(one, end - 100, end, lambda: sum(was_read) >= 200)
    warm.is_right(warm.pull_from(source), image([one]))


def test_a_whole_layer_is_asked_for_around_what_is_on_its_way(tmp_path: Path) -> None:
    one = layer(*range(60))
    assert one.tar_split_at is not None
    source = MemorySource(image([one]), piece=100)

    def is_asked_for() -> bool:
        return any(spans[0].start == 0 for digest, spans in source.asked if digest == one.digest)

    source.change = held_back(one, one.tar_split_at.offset, one.tar_split_at.end, is_asked_for)
    with bench(tmp_path, "cold") as on:
        outcome = on.pull_from(source)
        on.is_right(outcome, image([one]))
    assert outcome.receipt.layers[0].mode == "whole"
    assert outcome.receipt.bytes.wasted == 0


def test_a_tarsplit_that_comes_damaged_behind_its_chunks_costs_itself_alone(warm: Bench) -> None:
    one = NEW[0]
    assert one.tar_split_at is not None
    where = range(one.tar_split_at.offset + 3, one.tar_split_at.offset + 4)
    outcome = warm.pull(image([one]), change=flips(one.digest, where, times=1))
    warm.is_right(outcome, image([one]))
    assert outcome.receipt.bytes.wasted == one.tar_split_at.length


def test_a_blob_whose_host_forgets_its_ranges_between_toc_and_tarsplit_comes_whole_once(
    warm: Bench,
) -> None:
    one = NEW[0]
    assert one.tar_split_at is not None
    end = one.tar_split_at.offset + 10

    class Forgetful(MemorySource):
        """Breaks the answer off within the tar-split; from then on it knows whole blobs only."""

        def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
            for haul in super().read(blob, spans):
                yield haul
                position, piece = haul[-1]
                if self.ranges and blob.digest == one.digest and position + len(piece) >= end:
                    self.ranges = False
                    raise TransientError("gone")

    source = Forgetful(image([one]), piece=100)
    outcome = warm.pull_from(source, patience=Patience(_LONG))
    warm.is_right(outcome, image([one]))
    wholes = [
        spans
        for digest, spans in source.asked
        if digest == one.digest and spans == (ByteRange(0, one.size),)
    ]
    assert len(wholes) == 1
    assert outcome.receipt.layers[0].mode == "whole"


@pytest.mark.parametrize("flipped", [5, 100], ids=["what decodes all the same", "content"])
def test_a_damaged_chunk_comes_again_from_a_host_that_has_lost_its_ranges(
    warm: Bench, flipped: int
) -> None:
    one = NEW[0]
    assert one.toc_at is not None
    chunk = next(chunk for chunk in one.chunks if chunk.file == "f1")

    class Forgetful(MemorySource):
        """Serves ranges of the TOC and what follows it, and nothing else."""

        def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
            assert one.toc_at is not None
            self.ranges = blob.digest != one.digest or spans[0].start >= one.toc_at.offset
            return super().read(blob, spans)

    change = flips(one.digest, range(chunk.start + flipped, chunk.start + flipped + 1), times=1)
    outcome = warm.pull_from(
        Forgetful(image([one]), piece=100, change=change), patience=Patience(_LONG)
    )
    warm.is_right(outcome, image([one]))


def test_a_file_that_is_found_wrong_early_ends_the_making_of_a_long_tar(tmp_path: Path) -> None:
    """Its digest is judged by another thread than the one that makes the tar.

    Which must not wait for it for ever.
    """

    def lie(toc: dict[str, Any]) -> None:
        entry = next(
            entry for entry in toc["entries"] if entry["name"] == "a" and entry["type"] == "reg"
        )
        entry["digest"] = "sha256:" + "0" * 64

    files = [
        Entry("a", noise(1, 40_000)),
        *[Entry(f"b{number}", noise(number, 200_000)) for number in range(30)],
    ]
    liar = chunked_layer(make_tar(files), cut=every(20_000), edit_toc=lie)
    with (
        bench(tmp_path, "metered") as on,
        pytest.raises(IntegrityError, match="although its chunks do"),
    ):
        on.pull(image([liar]), piece=65536)


@pytest.mark.parametrize("options", [{"max_bytes": 1000}, {"offline": True}], ids=str)
def test_who_may_refuse_a_plan_sees_all_of_it_first(warm: Bench, options: dict[str, Any]) -> None:
    source = MemorySource(image([*NEW]), piece=100)
    with pytest.raises((RefusedError, NotFoundError)):
        warm.pull_from(source, **options)
    for one in NEW:
        assert not [
            spans
            for digest, spans in source.asked
            if digest == one.digest and is_chunk_of(one, spans)
        ]


def test_a_plan_within_bounds_is_fetched_as_planned(warm: Bench) -> None:
    warm.is_right(warm.pull(image([*NEW]), max_bytes=10_000_000), image([*NEW]))


def test_the_plan_is_told_once_and_what_has_come_by_then_is_not_in_it(warm: Bench) -> None:
    outcome = warm.pull(image([*NEW]))
    told = [number for number, event in enumerate(outcome.events) if isinstance(event, Planned)]
    assert len(told) == 1
    plan, after = outcome.events[told[0]], outcome.events[told[0] :]
    assert isinstance(plan, Planned)
    arrived = sum(event.bytes for event in after if isinstance(event, Arrived))
    # what was on its way when the plan was told counts here, or before
    assert arrived >= plan.need_bytes
    assert plan.need_bytes <= outcome.receipt.bytes.needed + outcome.receipt.bytes.gap


def plan_of(folder: Path, content: Image) -> Receipt:
    receipt = Receipt("x")
    source = MemorySource(content)
    with open_store(folder) as store:
        origin = Origin(parse_image("example.com/app:t"), source, source.traffic)
        Pull(
            origin, store, Options(AMD64, jobs=2, patience=IMPATIENT), receipt, lambda _: None
        ).plan()
    return receipt


LAYERS = [
    layer(*range(30)),
    layer(*range(20, 50), name="g"),
    layer(*range(10, 25), *range(45, 60), name="h"),
]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_whichever_toc_comes_first_what_comes_is_what_was_planned(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    """Layers share chunks, and who fetches them is decided by the manifest alone."""
    content = image(LAYERS)
    for folder in ("planned", "pulled"):
        with bench(tmp_path / folder, "cold") as on:
            on.pull(image([layer(*range(0, 60, 3))]), "example.com/old:t")
    planned = plan_of(tmp_path / "planned", content)
    assert planned.estimate is not None
    with bench(tmp_path / "pulled", "cold") as on:
        source = MemorySource(content, piece=200)
        came: list[str] = []
        turns = [LAYERS[number].digest for number in order]

        def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
            if blob.digest in turns and blob.digest not in came:
                waited = threading.Event()
                for _ in range(int(_LONG * 100)):
                    if turns[len(came)] == blob.digest:
                        break
                    waited.wait(0.01)
                came.append(blob.digest)
            return piece

        source.change = change
        outcome = on.pull_from(source, jobs=4)
        on.is_right(outcome, content)
    spent = outcome.receipt.bytes
    assert spent.fetched == planned.bytes.fetched + planned.estimate.bytes - len(content.manifest)
    assert spent.wasted == 0


# ── requests made anew ──

NEAR, FAR = Link(0.01, 1e6), Link(1.0, 1e7)


def conditions(link: Link, spans: int = 1) -> LinkConditions:
    return LinkConditions(4, link, lambda _: spans)


def test_orders_are_made_anew_where_the_link_has_moved_and_only_there(warm: Bench) -> None:
    one = NEW[0]
    descriptor = Descriptor(
        one.media_type, Digest(one.digest), one.size, annotations=one.annotations
    )
    warm.pull(image([one]))
    task = LayerTask(
        descriptor,
        Digest(one.diff_id),
        LayerEntry(one.digest, one.diff_id, one.size, "zstd:chunked"),
        BlobArrival(threading.Event()),
    )
    task.index = read_index_and_tarsplit(warm.store, descriptor)
    task.way = "lean"
    planner = Planner(warm.store, GapOptions())
    planner.plan(task, conditions(NEAR))
    assert planner.new_shape(task, conditions(NEAR)) is None
    assert planner.new_shape(task, conditions(Link(0.011, 1.1e6))) is None
    moved = planner.new_shape(task, conditions(FAR))
    assert moved is not None
    assert moved.policy.most > 8 << 10
    assert planner.new_shape(task, conditions(FAR)) is None
    assert planner.new_shape(task, conditions(FAR, spans=100)) is not None


def test_a_layer_of_which_all_has_been_asked_for_came_whole(warm: Bench) -> None:
    """Its table was read too late: nothing is left that a frame of the store could stand in for."""
    one = NEW[0]
    descriptor = Descriptor(
        one.media_type, Digest(one.digest), one.size, annotations=one.annotations
    )
    warm.pull(image([one]))
    task = LayerTask(
        descriptor,
        Digest(one.diff_id),
        LayerEntry(one.digest, one.diff_id, one.size, "zstd:chunked"),
        BlobArrival(threading.Event()),
    )
    task.index = read_index_and_tarsplit(warm.store, descriptor)
    task.facts.toc = "slow"
    task.settle_way()
    planner = Planner(warm.store, GapOptions())
    planner.plan(task, conditions(NEAR))
    planner.look_up(task)
    assert planner.take_parts(task, conditions(NEAR), []) == []
    assert (task.way, task.entry.mode, task.entry.reason) == (
        "whole",
        "whole",
        "takes less time whole than in parts",
    )


NEEDS = st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 500)), min_size=1, max_size=30)


@settings(deadline=None)
@given(NEEDS, st.integers(0, 20), st.sampled_from([0, 100, 1000]), st.sampled_from([0, 100, 1000]))
def test_what_is_planned_anew_comes_once_and_all_of_it(
    tmp_path_factory: pytest.TempPathFactory,
    needs: list[tuple[int, int]],
    begun: int,
    before: int,
    after: int,
) -> None:
    """Nothing is lost and nothing is asked for twice, however many runs had begun."""
    wanted, at = [], 0
    for size, gap in needs:
        wanted.append(ByteRange(at, at + size))
        at += size + gap
    data = noise(at, at)
    one = Layer(data, data, "application/octet-stream")
    source = MemorySource(image([one]))
    stop = threading.Event()
    blob = Descriptor(one.media_type, Digest(one.digest), one.size)
    with open_store(tmp_path_factory.mktemp("store")) as store:
        events: list[Event] = []
        karma = Chameleon(Patience(1.0), 1, events.append, stop)
        downloader = Downloader(
            RetryingSource(source, karma), store, accounts=Accounts(), emit=events.append, stop=stop
        )

        def gaps_up_to(most: int) -> Callable[[list[ByteRange]], list[Run]]:
            return lambda left: runs_for(left, policy=GapPolicy(most, float("inf")), jobs=1)

        pool = WorkerPool({"fetch": 1}, stop)
        plan = FetchPlan(blob, gaps_up_to(before)(merge(wanted)), merge(wanted))
        pool.submit("fetch", lambda: None)
        downloader.submit(pool, plan)
        tasks = pool._queues["fetch"]
        for _ in range(min(begun, len(plan.runs)) + 1):
            task = tasks.get()
            assert task is not None
            task()
        downloader.replan(pool, plan, gaps_up_to(after))
        assert downloader.bytes_left() >= total(store.missing(blob.digest, plan.wanted))
        while not tasks.empty():
            task = tasks.get()
            assert task is not None
            task()
        downloader.close()
        assert downloader.bytes_left() == 0
        assert subtract(merge(wanted), store.covered(blob.digest)) == []
        downloader.arrivals.wait_for(blob.digest, one.size)
        asked = [span for _, spans in source.asked for span in spans]
        assert total(asked) == total(merge(asked))


# ── the link, as it is now ──


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_of_all_bodies_together_and_of_busy_seconds_alone() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    assert traffic.rate is None
    traffic.begun()
    traffic.begun()
    for _ in range(10):
        clock.now += 0.1
        traffic.received(50_000)
        traffic.received(50_000)
    traffic.ended()
    traffic.ended()
    assert traffic.rate == pytest.approx(1_000_000)
    clock.now += 1000
    assert traffic.rate == pytest.approx(1_000_000)


def test_the_rate_follows_a_link_that_slows_down_and_one_that_stalls_keeps_the_last() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    traffic.begun()
    for size in [100_000] * 100 + [1_000] * 100:
        clock.now += 0.1
        traffic.received(size)
    assert traffic.rate == pytest.approx(10_000, rel=0.1)
    traffic.ended()


def test_the_round_trip_is_the_shortest_of_the_last_answers() -> None:
    traffic = Traffic(Clock())
    assert traffic.round_trip is None
    for seconds in [0.01, 0.5] + [0.2] * 40:
        traffic.answered(seconds)
    assert traffic.round_trip == pytest.approx(0.2)


def test_what_a_part_costs_is_told_by_the_time_that_its_bytes_do_not_take() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    traffic.begun()
    clock.now += 0.1
    traffic.received(10_000_000)  # 100 MB/s
    traffic.ended()
    assert traffic.plain_rate == pytest.approx(100e6)
    assert traffic.part_seconds is None
    traffic.begun(is_parted=True)
    for _ in range(100):
        clock.now += 0.011
        traffic.received(1_000_000)
        traffic.framed(500, parts=10)
    traffic.ended(is_parted=True)
    assert traffic.part_seconds == pytest.approx(0.1e-3)
    assert traffic.plain_rate == pytest.approx(100e6)
