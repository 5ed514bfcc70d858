"""A collection on real stores.

What stays can be exported, what goes is gone, beside others and after kills.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import Image, chunked_layer, image, make_tar
from tests.helpers.harness.pulls import pull
from tests.helpers.harness.rough import files
from tests.helpers.servers.memory import MemorySource
from zchunked.export.images.layers import layers_of
from zchunked.findings import Freed
from zchunked.maintenance.gc import collect
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import Digest
from zchunked.options import DAY, GapOptions, GcOptions
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.images import load
from zchunked.store.index import collector
from zchunked.store.index.collector import Collector

LEAN = GapOptions(max_gap=0)
BIG = 40  # files of 10 kB that both versions have


@cache
def version(own: int, *, shared: int = BIG) -> Image:
    """An image whose one layer has files that all versions have, and sixty of its own."""
    content = files(1, shared, 10_000) | files(100 + own, 60, 10_000)
    return image([chunked_layer(make_tar(content))])


def pulled(store: Store, made: Image, name: str, **options: Any) -> None:
    pull(MemorySource(made), store, name, **options)


def assert_exports(folder: Path, made: Image, name: str) -> None:
    with Store(folder) as store:
        content = layers_of(store, load(store, name, None, None))[0]
        hasher = hashlib.sha256()
        for piece in content.tar():
            hasher.update(piece)
        assert "sha256:" + hasher.hexdigest() == made.layers[0].diff_id
        assert verify(store).damaged == []


def weight(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "blobs").iterdir())


def names(folder: Path) -> list[str]:
    with Store(folder) as store:
        return [one.name for one in store.images()]


def forget(folder: Path, name: str) -> None:
    with Store(folder) as store:
        store.collector().forget_names([(name, one.platform) for one in store.images()])


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """v1 whole, v2 rebuilt from parts of it and its own."""
    with Store(tmp_path / "store") as store:
        pulled(store, version(1), "host.example/app:v1", jobs=1)
        pulled(store, version(2), "host.example/app:v2", gaps=LEAN)
    return tmp_path / "store"


def test_nothing_goes_while_names_reach_it(two: Path) -> None:
    before = weight(two)
    freed = collect(two, GcOptions())
    assert (freed.images, freed.blobs) == ([], 0)
    assert weight(two) == before
    assert_exports(two, version(1), "host.example/app:v1")
    assert_exports(two, version(2), "host.example/app:v2")


def test_an_update_keeps_the_old_versions_bytes_that_it_was_rebuilt_from(two: Path) -> None:
    forget(two, "host.example/app:v1")
    freed = collect(two, GcOptions())
    assert freed.bytes > 50 * 10_000
    assert_exports(two, version(2), "host.example/app:v2")
    assert weight(two) < 1.05 * version(2).layers[0].size
    with Store(two) as store:
        assert (
            store.proof(Digest(version(2).layers[0].digest), Digest(version(2).layers[0].diff_id))
            is not None
        )
        outcome = pull(MemorySource(version(3)), store, "host.example/app:v3", gaps=LEAN)
    assert outcome.receipt.bytes.cached > BIG * 9_000, "what is kept is found by the next update"


def test_without_the_update_the_old_version_stays_and_the_rest_goes(two: Path) -> None:
    forget(two, "host.example/app:v2")
    collect(two, GcOptions())
    assert_exports(two, version(1), "host.example/app:v1")
    assert weight(two) < 1.05 * version(1).layers[0].size


def test_without_a_name_everything_goes(two: Path) -> None:
    forget(two, "host.example/app:v1")
    forget(two, "host.example/app:v2")
    freed = collect(two, GcOptions())
    assert freed.blobs >= 4
    assert weight(two) == 0
    with Store(two) as store:
        assert all(not store.covered(digest) for digest, _, _ in store.blobs())


def test_a_dry_run_says_what_would_go_and_takes_nothing(two: Path) -> None:
    forget(two, "host.example/app:v1")
    before = weight(two)
    told = collect(two, GcOptions(is_dry=True))
    assert weight(two) == before
    done = collect(two, GcOptions())
    assert told.blobs == done.blobs
    assert told.bytes == pytest.approx(done.bytes, rel=0.1)


def test_keep_trims_to_the_named_images(two: Path) -> None:
    freed = collect(two, GcOptions(keep=frozenset({("host.example/app:v2", "linux/amd64")})))
    assert [ref.name for ref in freed.images] == ["host.example/app:v1"]
    assert names(two) == ["host.example/app:v2"]
    assert_exports(two, version(2), "host.example/app:v2")


def test_keep_last_trims_to_the_latest(two: Path) -> None:
    collect(two, GcOptions(keep_last=1))
    assert names(two) == ["host.example/app:v2"]


def test_images_that_are_too_old_go(two: Path) -> None:
    with Store(two) as store:
        newest = store.images()[0].pulled
    collect(two, GcOptions(max_age=30 * DAY), now=lambda: newest + 29 * DAY)
    assert len(names(two)) == 2
    collect(two, GcOptions(max_age=30 * DAY), now=lambda: newest + 31 * DAY)
    assert names(two) == []


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8, 1.0])
def test_a_size_budget_is_kept(tmp_path: Path, share: float) -> None:
    folder = tmp_path / "store"
    with Store(folder) as store:
        for number in range(6):
            pulled(store, version(number, shared=4), f"host.example/app:v{number}")
    full = collect(folder, GcOptions()).after
    budget = int(share * full)
    freed = collect(folder, GcOptions(max_bytes=budget))
    assert freed.after <= 1.02 * budget
    assert freed.over == 0
    left = names(folder)
    assert left == [f"host.example/app:v{number}" for number in reversed(range(6))][: len(left)], (
        "the latest stay"
    )
    for name in left:
        assert_exports(folder, version(int(name[-1]), shared=4), name)


# ── beside others ──


def test_what_a_running_process_uses_stays(two: Path) -> None:
    layer = version(1).layers[0]
    with Store(two) as reader:
        reader.covered(Digest(layer.digest))
        forget(two, "host.example/app:v1")
        collect(two, GcOptions())
        assert reader.read(Digest(layer.digest), 0, layer.size) == layer.blob
    collect(two, GcOptions())
    with Store(two) as store:
        assert store.missing(Digest(layer.digest), [ByteRange(0, layer.size)])


def test_a_proof_that_a_running_pull_relies_on_stays_with_all_it_rests_on(two: Path) -> None:
    layer = version(2).layers[0]
    with Store(two) as other:
        assert other.proof(Digest(layer.digest), Digest(layer.diff_id)) is not None
        for name in ("host.example/app:v1", "host.example/app:v2"):
            forget(two, name)
        collect(two, GcOptions())
        pulled(other, version(2), "host.example/app:again", gaps=LEAN)
    assert_exports(two, version(2), "host.example/app:again")


def test_a_pull_that_ends_while_the_plan_is_made_is_seen(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name was not there when the plan was made, and its process is gone when the rows go."""
    forget(two, "host.example/app:v1")
    forgets = Collector.forget
    done: list[bool] = []

    def late(self: Collector, *args: object) -> bool:
        if not done:
            done.append(True)
            with Store(two) as other:
                pulled(other, version(1), "host.example/app:late")
        return forgets(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Collector, "forget", late)
    collect(two, GcOptions())
    assert_exports(two, version(1), "host.example/app:late")
    assert_exports(two, version(2), "host.example/app:v2")


def test_two_collections_at_once_do_no_harm(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(two, "host.example/app:v1")
    compact = Collector.compact
    inner: list[Freed] = []

    def twice(self: Collector, file: str) -> int:
        if not inner:
            inner.append(Freed())
            inner[0] = collect(two, GcOptions())
        return compact(self, file)

    monkeypatch.setattr(Collector, "compact", twice)
    collect(two, GcOptions())
    assert inner
    assert_exports(two, version(2), "host.example/app:v2")


# ── interrupted downloads ──


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    class EndedError(Exception):
        pass

    def broken(blob: object, at: int, piece: bytes) -> bytes:
        if 300_000 < at < 900_000:
            raise EndedError
        return piece

    folder = tmp_path / "store"
    with Store(folder) as store, pytest.raises(EndedError):
        pull(MemorySource(version(1), change=broken), store, "host.example/app:v1", jobs=1)
    return folder


def test_an_interrupted_download_stays_for_two_weeks(interrupted: Path) -> None:
    with Store(interrupted) as store:
        began = store.pulls.rows()[0].began
    before = weight(interrupted)
    collect(interrupted, GcOptions(), now=lambda: began + 13 * DAY)
    assert weight(interrupted) == before > 200_000
    freed = collect(interrupted, GcOptions(), now=lambda: began + 15 * DAY)
    assert [pull.name for pull in freed.pulls] == ["host.example/app:v1"]
    assert weight(interrupted) == 0


def test_keep_drops_interrupted_downloads_of_others(interrupted: Path) -> None:
    collect(interrupted, GcOptions(keep=frozenset()))
    assert weight(interrupted) == 0


def test_a_finished_pull_is_no_interrupted_one(interrupted: Path) -> None:
    with Store(interrupted) as store:
        assert len(store.pulls.rows()) == 1
        pulled(store, version(1), "host.example/app:v1")
        assert store.pulls.rows() == []


# ── kills ──


class KilledError(BaseException):
    """As good as kill -9: nothing below catches it."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """End the process's work at the step'th system call of a collection that changes the disk."""
    count = 0

    def wrapped(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                monkeypatch.undo()
                raise KilledError
            return real(*args, **named)

        return call

    for name in ("fsync", "unlink"):
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))
    monkeypatch.setattr(Path, "unlink", wrapped(Path.unlink))
    for name in ("_copy", "_swap"):
        monkeypatch.setattr(collector, name, wrapped(getattr(collector, name)))
    return lambda: count >= step


@pytest.mark.parametrize("step", range(1, 9))
def test_a_kill_at_any_step_leaves_a_store_that_the_next_collection_finishes(
    two: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(two, "host.example/app:v1")
    was_reached = killed_at(step, monkeypatch)
    try:
        collect(two, GcOptions())
    except KilledError:
        assert was_reached()
    monkeypatch.undo()
    assert_exports(two, version(2), "host.example/app:v2")
    collect(two, GcOptions())
    assert_exports(two, version(2), "host.example/app:v2")
    assert weight(two) < 1.05 * version(2).layers[0].size


# ── blobs that share frames ──


@pytest.fixture
def exact(tmp_path: Path) -> Path:
    """v1 whole, v2 assembled from frames of it and its own.

    The registry's own blobs, with bytes in common.
    """
    with Store(tmp_path / "store") as store:
        pulled(store, version(1), "host.example/app:v1", jobs=1)
        pulled(store, version(2), "host.example/app:v2", gaps=GapOptions(exact=True))
        layer = version(2).layers[0]
        assert store.is_whole(Digest(layer.digest))
    assert weight(tmp_path / "store") < 1.75 * layer.size
    return tmp_path / "store"


def test_frames_live_as_long_as_one_blob_that_has_them(exact: Path) -> None:
    forget(exact, "host.example/app:v1")
    freed = collect(exact, GcOptions())
    assert freed.compacted == 1
    assert freed.bytes > 50 * 10_000
    layer = version(2).layers[0]
    assert weight(exact) < 1.05 * layer.size
    with Store(exact) as store:
        assert store.read(Digest(layer.digest), 0, layer.size) == layer.blob
    assert_exports(exact, version(2), "host.example/app:v2")


def test_the_next_update_finds_the_frames_that_only_the_dead_blob_was_indexed_with(
    exact: Path, tmp_path: Path
) -> None:
    """A frame that two blobs share has one row.

    When that blob goes, the other one's frames are indexed again.
    """
    wanted: dict[str, Any] = {"gaps": GapOptions(exact=True)}
    shutil.copytree(exact, tmp_path / "other")
    with Store(tmp_path / "other") as store:
        needed = pull(
            MemorySource(version(3)), store, "host.example/app:v3", **wanted
        ).receipt.bytes.needed
    forget(exact, "host.example/app:v1")
    collect(exact, GcOptions())
    with Store(exact) as store:
        again = pull(
            MemorySource(version(3)), store, "host.example/app:v3", **wanted
        ).receipt.bytes.needed
    assert again == pytest.approx(needed, rel=0.02)
    assert needed < 0.75 * version(3).layers[0].size


@pytest.mark.parametrize(
    "options", [GcOptions(), GcOptions(keep_last=1), GcOptions(max_bytes=1_100_000)], ids=str
)
def test_a_dry_run_says_what_a_collection_frees(two: Path, options: GcOptions) -> None:
    forget(two, "host.example/app:v1")
    dry = collect(two, replace(options, is_dry=True))
    done = collect(two, options)
    assert (dry.blobs, dry.images) == (done.blobs, done.images)
    assert dry.bytes == pytest.approx(done.bytes, abs=32 << 10), "but for some pages of the index"
    assert done.bytes > 400_000
