"""Whether tables of contents are read is decided for all layers of an image together."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.build.front import Image, chunked_layer, image, make_tar
from tests.helpers.harness.pulls import AMD64, IMPATIENT, open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.download.coalesce import Link
from zchunked.download.retries import watchdog
from zchunked.layers import index_frames
from zchunked.layers.index_frames import Unindexed, read_table
from zchunked.layers.stored_toc import StoredToc
from zchunked.limits import Limits
from zchunked.oci.documents import Descriptor
from zchunked.oci.reference import parse_image
from zchunked.options import GapOptions, Options, Patience
from zchunked.pull.origin import Origin
from zchunked.pull.planning import stored_frames
from zchunked.pull.planning.conditions import Conditions
from zchunked.pull.planning.estimates import LinkConditions
from zchunked.pull.planning.ways import WorkCosts
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt
from zchunked.store import Store

FILES = 40
DEAR = WorkCosts(frame=2e-3)
"""A table of 40 files is read in a quarter of a second."""
FAST, SLOW = Link(0.001, 1e9), Link(0.001, 1e5)


def images(layers: int) -> tuple[Image, Image]:
    """Two versions; a quarter of each layer's files is another one."""
    made = []
    for moved in (0, FILES // 4):
        trees = [
            {f"f{name}": b"%d-%d " % (layer, name) * 400 for name in range(moved, moved + FILES)}
            for layer in range(layers)
        ]
        made.append(image([chunked_layer(make_tar(tree)) for tree in trees]))
    return made[0], made[1]


def planned(content: Image, store: Store, name: str = "example.com/app:t") -> Receipt:
    receipt, source = Receipt("x"), MemorySource(content, spans=8)
    source.traffic.__init__(time.monotonic)  # type: ignore[misc]
    origin = Origin(parse_image(name), source, source.traffic)
    options = Options(AMD64, jobs=4, patience=IMPATIENT)
    Pull(origin, store, options, receipt, lambda _: None).plan()
    return receipt


@pytest.mark.parametrize(
    ("layers", "link", "costs", "way"),
    [
        (1, FAST, DEAR, "exact"),
        (8, FAST, DEAR, "whole"),  # half a second is there once, and not eight times
        (8, SLOW, DEAR, "exact"),
        # The tables of the stored layers are what takes so long
        (1, FAST, WorkCosts(table_byte=1e-3), "whole"),
        (1, SLOW, WorkCosts(table_byte=1e-4), "exact"),
    ],
)
def test_many_small_layers_come_one_way_and_a_plan_says_which(
    layers: int,
    link: Link,
    costs: WorkCosts,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    means = LinkConditions(4, link, lambda _: 8, costs=costs)
    before, after = images(layers)
    for name in ("planned", "pulled"):
        with open_store(tmp_path / name) as store:
            pull(MemorySource(before, spans=8), store)
    monkeypatch.setattr(Conditions, "now", lambda _: means)
    with open_store(tmp_path / "planned") as store:
        receipt = planned(after, store)
    assert [one.way for one in receipt.ways or () if one.taken] == [way]
    with open_store(tmp_path / "pulled") as store:
        outcome = pull(MemorySource(after, spans=8), store)
    mode = "partial" if way == "exact" else "whole"
    assert {layer.mode for layer in outcome.receipt.layers} == {mode}


def test_a_plan_counts_the_tables_of_stored_blobs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = images(3)
    found = []
    for price in (1e-9, 1e-3):
        means = LinkConditions(4, SLOW, lambda _: 8, costs=WorkCosts(table_byte=price))
        with open_store(tmp_path / str(price)) as store:
            pull(MemorySource(before, spans=8), store)
            with monkeypatch.context() as patch:
                patch.setattr(Conditions, "now", lambda _, means=means: means)
                found.append({one.way: one.seconds for one in planned(after, store).ways or ()})
    cheap, dear = found
    toc_bytes = sum(one.toc_at.end - one.toc_at.offset for one in before.layers if one.toc_at)
    assert dear["exact"] - cheap["exact"] == pytest.approx(toc_bytes * 1e-3, abs=0.2)
    assert dear["whole"] == cheap["whole"]


def files(*seeds: int) -> Image:
    tree = {f"f{seed}": random.Random(seed).randbytes(9000) for seed in seeds}
    return image([chunked_layer(make_tar(tree))])


@contextmanager
def fast_pulls(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store of seven images of as many repositories, each of which came whole."""
    means = LinkConditions(4, FAST, lambda _: 8, costs=WorkCosts(frame=0.1))
    monkeypatch.setattr(Conditions, "now", lambda _: means)
    with open_store(path) as store:
        for first in range(0, 70, 10):
            source = MemorySource(files(*range(first, first + 20)))
            pull(source, store, f"example.com/i{first}:t")
        yield store


def test_blobs_that_came_whole_wait_for_who_wants_their_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fast_pulls(tmp_path, monkeypatch) as store:
        assert len(store.frames.unindexed()) == 7
        assert not store.frames.holds_rows()
        wanted = MemorySource(files(*range(5, 60)))  # of six of them
        outcome = pull(wanted, store, gaps=GapOptions(exact=True))
        assert outcome.receipt.bytes.needed < 9000


@pytest.mark.parametrize(
    ("repository", "price", "read"),
    [("i10", 1e-9, 7), ("i10", 1e-3, 1), ("app", 1e-3, 1)],
    ids=["cheap", "dear", "no image of it"],
)
def test_a_plan_reads_no_more_tables_than_its_bytes_are_worth(
    repository: str, price: float, read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def noted(store: Store, one: Unindexed, limits: Limits) -> StoredToc | None:
        found.append(one.blob)
        return read_table(store, one, limits)

    with fast_pulls(tmp_path, monkeypatch) as store:
        monkeypatch.setattr(stored_frames, "read_table", noted)
        monkeypatch.setattr(index_frames, "read_table", noted)
        means = LinkConditions(4, SLOW, lambda _: 8, costs=WorkCosts(table_byte=price))
        monkeypatch.setattr(Conditions, "now", lambda _: means)
        planned(files(*range(10, 25)), store, f"example.com/{repository}:next")
        assert len(found) == read
        first = 10 if repository == "i10" else 60  # its repository's, or the newest
        assert files(*range(first, first + 20)).layers[0].digest in found


def test_who_serves_lets_no_client_wait_for_all_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = GapOptions(exact=True)
    with fast_pulls(tmp_path, monkeypatch) as store:
        means = LinkConditions(4, FAST, lambda _: 8, costs=WorkCosts(table_byte=1e-3))
        monkeypatch.setattr(Conditions, "now", lambda _: means)
        wanted = MemorySource(files(*range(5, 60)))
        pull(wanted, store, gaps=exact, takes_turns=False)
        assert not store.frames.holds_rows()
        pull(wanted, store, "example.com/app:again", gaps=exact)
        assert not store.frames.holds_rows()  # all of it is here
        pull(MemorySource(files(*range(5, 61))), store, "example.com/app:next", gaps=exact)
        assert store.frames.holds_rows()


def test_tables_that_nothing_had_the_time_for_are_recorded_beside_a_slow_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fast_pulls(tmp_path, monkeypatch) as store:
        means = LinkConditions(2, SLOW, lambda _: 8, costs=WorkCosts(table_byte=1e-3))
        until = time.monotonic() + 20

        def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
            while "layer" in blob.media_type and at < 3000 and len(store.frames.unindexed()) > 1:
                assert time.monotonic() < until
                time.sleep(0.01)
            return piece

        monkeypatch.setattr(Conditions, "now", lambda _: means)
        monkeypatch.setattr(stored_frames, "_RECORD_SECONDS", 0.0)
        monkeypatch.setattr(stored_frames, "_BESIDE", 0.001)
        source = MemorySource(files(*range(100, 160)), spans=8, change=change)
        pull(source, store, "example.com/app:new")
        assert store.frames.holds_rows()


def test_reading_tables_uses_up_no_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of a hundred images took a minute; the pull ended as if no byte had arrived."""

    def slowly(store: Store, one: Unindexed, limits: Limits) -> StoredToc | None:
        time.sleep(0.3)
        return read_table(store, one, limits)

    with fast_pulls(tmp_path, monkeypatch) as store:
        monkeypatch.setattr(index_frames, "read_table", slowly)
        monkeypatch.setattr(watchdog, "_STRETCH_SECONDS", 0.4)
        patience = Patience(patience=0.5)
        wanted = MemorySource(files(*range(5, 60)))
        outcome = pull(wanted, store, gaps=GapOptions(exact=True), patience=patience)
        assert outcome.receipt.bytes.needed < 9000
