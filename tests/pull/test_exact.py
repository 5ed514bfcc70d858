"""Pulls that end with the registry's own blobs.

Put together from frames of older versions and what is fetched.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import (
    Json,
    Layer,
    chunked_layer,
    image,
    make_tar,
    read_layout,
    sha256,
)
from tests.helpers.build.golden import Golden
from tests.helpers.harness.hostile import flips
from tests.helpers.harness.pulls import Outcome, open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.download.coalesce import Link
from zchunked.download.downloader import Downloader
from zchunked.errors import IntegrityError, InterruptedPullError, TransferError, TransientError
from zchunked.export.images.layers import layers_of, manifest_of
from zchunked.layers.index_frames import index_blobs, read_table, unindexed
from zchunked.layers.metadata import read_index_and_tarsplit
from zchunked.layers.stand_ins import find_frames
from zchunked.limits import DEFAULT_LIMITS
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import Digest, raw
from zchunked.oci.documents import Descriptor
from zchunked.options import GapOptions
from zchunked.pull import layers
from zchunked.pull.metadata import toc_stream
from zchunked.pull.planning import way_chooser, ways
from zchunked.pull.planning.conditions import Conditions
from zchunked.pull.planning.estimates import LinkConditions
from zchunked.pull.planning.ways import WayCost, WorkCosts
from zchunked.ranges import ByteRange
from zchunked.store import Store

FIXTURES = Path(__file__).parents[2] / "fixtures"
EXACT = GapOptions(exact=True)
PAIRS = [
    ("demo-v1", "demo-v2"),
    ("demo-v2", "demo-v1"),
    ("g1-old", "demo-v1"),
    ("demo-v1", "g1-old"),
    ("g1-old", "demo-v2"),
]


def source_of(golden: Golden, spans: int = 8) -> MemorySource:
    return MemorySource(read_layout(golden.layout), golden.tag, spans=spans, piece=5000)


def update(
    store: Store, before: Golden, after: Golden, gaps: GapOptions = EXACT
) -> tuple[Outcome, MemorySource]:
    pull(source_of(before), store, f"example.com/{before.tag}:t", gaps=gaps)
    source = source_of(after)
    return pull(source, store, gaps=gaps), source


def assert_identical(store: Store, golden: Golden, outcome: Outcome) -> None:
    """Every blob is the registry's, and so is the manifest."""
    blobs = read_layout(golden.layout).blobs
    for layer in golden.layers:
        digest, size = Digest(layer["digest"]), layer["size"]
        assert store.is_whole(digest)
        data = b"".join(store.stream(digest, ByteRange(0, size)))
        assert data == blobs[digest]
    assert outcome.image is not None
    manifest, _ = manifest_of(outcome.image, layers_of(store, outcome.image))
    assert "sha256:" + hashlib.sha256(manifest).hexdigest() == golden.expect["manifest"]["digest"]


def assert_books_balance(outcome: Outcome, source: MemorySource) -> None:
    spent = outcome.receipt.bytes
    assert min(spent.needed, spent.metadata, spent.gap, spent.wasted, spent.cached) >= 0
    assert (
        spent.fetched
        == spent.needed + spent.metadata + spent.gap + spent.wasted
        == source.traffic.fetched
    )


@pytest.mark.parametrize("gaps", [EXACT, GapOptions()], ids=["exact", "as planned"])
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_an_update_ends_with_the_registrys_blobs(
    before: str, after: str, gaps: GapOptions, tmp_path: Path
) -> None:
    golden = Golden("demo", after)
    with open_store(tmp_path) as store:
        outcome, source = update(store, Golden("demo", before), golden, gaps)
        assert_identical(store, golden, outcome)
        assert_books_balance(outcome, source)
        assert outcome.receipt.bytes.wasted == 0
        assert source.blob_bytes <= golden.expect["image_bytes"]
        if "g1-old" not in (before, after):
            assert source.blob_bytes < golden.expect["image_bytes"] / 2


# ── frames of made-up layers ──


def noise(seed: int, size: int = 3000) -> bytes:
    return random.Random(seed).randbytes(size)


def tree(*seeds: int) -> dict[str, bytes]:
    return {f"f{seed}": noise(seed) for seed in seeds}


OLD, NEW = chunked_layer(make_tar(tree(*range(30)))), chunked_layer(make_tar(tree(*range(20, 45))))


@contextmanager
def warm(folder: Path, *layers: Layer) -> Iterator[Store]:
    with open_store(folder) as store:
        for number, layer in enumerate(layers or [OLD]):
            pull(MemorySource(image([layer])), store, f"example.com/old{number}:t")
        yield store


def is_blob(store: Store, layer: Layer) -> bool:
    digest = Digest(layer.digest)
    return (
        store.is_whole(digest)
        and b"".join(store.stream(digest, ByteRange(0, layer.size))) == layer.blob
    )


def test_a_frame_lies_in_the_store_once(tmp_path: Path) -> None:
    with warm(tmp_path) as store:
        outcome = pull(MemorySource(image([NEW])), store, gaps=EXACT)
        assert is_blob(store, NEW)
        assert outcome.receipt.layers[0].identical
        assert (outcome.receipt.layers[0].mode, outcome.receipt.layers[0].proved) == (
            "partial",
            "blob",
        )
        held = sum(path.stat().st_size for path in (store.folder / "blobs").iterdir())
        assert held < OLD.size + outcome.receipt.bytes.fetched + 5000
    with open_store(tmp_path) as again:
        assert is_blob(again, NEW)


def test_what_a_predicted_frame_brought_is_found_by_the_next_version(tmp_path: Path) -> None:
    third = chunked_layer(make_tar(tree(*range(25, 50))))
    with warm(tmp_path) as store:
        pull(MemorySource(image([NEW])), store, gaps=EXACT)
        outcome = pull(MemorySource(image([third])), store, gaps=EXACT)
        assert is_blob(store, third)
        assert outcome.receipt.bytes.needed < 6 * 3100


@pytest.mark.parametrize("where", ["payload", "header", "frame's own header"])
def test_damage_on_the_way_costs_what_was_damaged(where: str, tmp_path: Path) -> None:
    chunk = next(chunk for chunk in NEW.chunks if chunk.file == "f40")
    at = {
        "payload": chunk.start + 1000,
        "header": chunk.start - 20,
        "frame's own header": chunk.start + 5,
    }[where]
    with warm(tmp_path) as store:
        clean = pull(
            MemorySource(image([OLD, NEW])), open_store(tmp_path / "other"), gaps=EXACT
        ).receipt
        assert clean.bytes.wasted == 0
        source = MemorySource(image([NEW]), change=flips(NEW.digest, range(at, at + 1), times=1))
        outcome = pull(source, store, gaps=EXACT)
        assert is_blob(store, NEW)
        assert_books_balance(outcome, source)
        assert 0 < outcome.receipt.bytes.wasted < 10_000
        assert (
            source.blob_bytes <= NEW.size + len(image([NEW]).config) + outcome.receipt.bytes.wasted
        )


def test_a_registrys_copy_that_is_bad_is_refused_without_fetching_it_all_again(
    tmp_path: Path,
) -> None:
    chunk = next(chunk for chunk in NEW.chunks if chunk.file == "f40")
    with warm(tmp_path) as store:
        where = range(chunk.start + 1000, chunk.start + 1001)
        source = MemorySource(image([NEW]), change=flips(NEW.digest, where))
        with pytest.raises(IntegrityError) as caught:
            pull(source, store, gaps=EXACT)
        assert caught.value.exit_code == 6
        assert source.blob_bytes <= NEW.size + 2 * 3100
        assert not store.is_whole(Digest(NEW.digest))
        assert is_blob(store, OLD)


def test_a_stored_frame_that_is_damaged_is_fetched_and_its_blob_is_doubted(tmp_path: Path) -> None:
    chunk = next(chunk for chunk in OLD.chunks if chunk.file == "f25")
    with warm(tmp_path) as store:
        frame = OLD.blob[chunk.start : chunk.end]
        for path in (store.folder / "blobs").glob("*-*"):
            path.write_bytes(
                path.read_bytes().replace(
                    frame, bytes([frame[0]]) + frame[1:500] + b"?" + frame[501:]
                )
            )
        source = MemorySource(image([NEW]))
        outcome = pull(source, store, gaps=EXACT)
        assert is_blob(store, NEW)
        assert outcome.receipt.bytes.wasted == 0
        assert not store.is_whole(Digest(OLD.digest))
        assert source.blob_bytes <= NEW.size


def test_damage_of_a_shared_frame_is_forgotten_of_every_blob(tmp_path: Path) -> None:
    chunk = next(chunk for chunk in NEW.chunks if chunk.file == "f25")
    with warm(tmp_path) as store:
        pull(MemorySource(image([NEW])), store, gaps=EXACT)
        store.evict(Digest(NEW.digest), [ByteRange(chunk.start, chunk.end)])
        assert not store.is_whole(Digest(OLD.digest))
        there = next(one for one in OLD.chunks if one.file == "f25")
        assert not store.covers(Digest(OLD.digest), ByteRange(there.start, there.end))
        before = next(one for one in OLD.chunks if one.file == "f24")
        assert store.covers(Digest(OLD.digest), ByteRange(before.start, before.end))
        for name, layer in (("example.com/old0:t", OLD), ("example.com/app:t", NEW)):
            source = MemorySource(image([layer]))
            pull(source, store, name, gaps=EXACT)
            assert is_blob(store, layer)
            assert source.blob_bytes < 4000 if layer is OLD else source.blob_bytes == 0


def test_verify_finds_a_flipped_bit_of_a_shared_frame_and_both_images_heal(tmp_path: Path) -> None:
    chunk = next(chunk for chunk in OLD.chunks if chunk.file == "f25")
    frame = OLD.blob[chunk.start : chunk.end]
    with warm(tmp_path) as store:
        pull(MemorySource(image([NEW])), store, gaps=EXACT)
        for path in (store.folder / "blobs").glob("*-*"):
            path.write_bytes(
                path.read_bytes().replace(
                    frame, frame[:500] + bytes([frame[500] ^ 1]) + frame[501:]
                )
            )
        findings = verify(store)
        assert findings.damaged
        assert sum(one.end - one.start for one in findings.damaged) < 3 * len(frame)
        for layer in (OLD, NEW):
            source = MemorySource(image([layer]))
            pull(source, store, f"example.com/{layer.digest[7:]}:t", gaps=EXACT)
            assert is_blob(store, layer)
            assert source.blob_bytes < 2 * len(frame)


def lies_about(name: str, data: bytes) -> Any:
    def edit(toc: Json) -> None:
        next(entry for entry in toc["entries"] if entry["name"] == name)["digest"] = sha256(data)

    return edit


def test_a_toc_that_lies_costs_bytes_and_never_more_than_the_blob(tmp_path: Path) -> None:
    """It names a stored content of the same length, so a wrong frame stands in."""
    lying = chunked_layer(make_tar(tree(*range(20, 45))), edit_toc=lies_about("f40", noise(3)))
    with warm(tmp_path) as store:
        source = MemorySource(image([lying]))
        outcome = pull(source, store, gaps=EXACT)
        assert is_blob(store, lying)
        assert source.blob_bytes <= lying.size
        assert outcome.receipt.bytes.wasted == 0


def test_a_killed_pull_goes_on_with_what_came(tmp_path: Path) -> None:
    chunk = next(chunk for chunk in NEW.chunks if chunk.file == "f40")

    def cut(blob: Descriptor, at: int, piece: bytes) -> bytes:
        if blob.digest == NEW.digest and chunk.start <= at < chunk.end:
            raise TransientError("cut")
        return piece

    with warm(tmp_path) as store:
        first = MemorySource(image([NEW]), change=cut)
        with pytest.raises(TransferError):
            pull(first, store, gaps=EXACT, jobs=1)
        fetched = first.traffic.fetched
    with open_store(tmp_path) as store:
        second = MemorySource(image([NEW]))
        pull(second, store, gaps=EXACT)
        assert is_blob(store, NEW)
    with warm(tmp_path / "other") as store:
        whole = MemorySource(image([NEW]))
        pull(whole, store, gaps=EXACT)
        assert fetched + second.traffic.fetched <= whole.traffic.fetched + 6000


def test_another_encoders_blob_is_no_source(tmp_path: Path) -> None:
    dice = random.Random(7)
    words = [bytes(dice.choices(b"abcdefghij", k=6)) for _ in range(200)]
    tar = make_tar({f"app/{i}": b" ".join(dice.choices(words, k=1000)) for i in range(20)})
    other, mine = chunked_layer(tar, level=1), chunked_layer(tar, level=19)
    with warm(tmp_path, other) as store:
        source = MemorySource(image([mine]))
        outcome = pull(source, store, gaps=EXACT)
        assert is_blob(store, mine)
        (taken,) = outcome.receipt.layers
        assert (taken.mode, taken.reason) == (
            "whole",
            "what is stored of it was written by another encoder",
        )
        assert source.blob_bytes <= mine.size


def test_a_cold_pull_reads_no_table_of_contents_and_the_next_one_does(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        source = MemorySource(image([OLD]), spans=4)
        outcome = pull(source, store)
        assert [layer.mode for layer in outcome.receipt.layers] == ["whole"]
        assert source.blob_bytes == OLD.size + len(image([OLD]).config)
        assert len(store.frames.unindexed()) == 1
        assert list(store.find_chunks([bytes.fromhex(sha256(noise(3))[7:])])) == []
        outcome = pull(MemorySource(image([NEW])), store, "example.com/new:t", gaps=EXACT)
        assert outcome.receipt.layers[0].mode == "partial"
        assert not store.frames.holds_rows()  # its columns did
        assert is_blob(store, NEW)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_table_tells_what_its_rows_would_tell(before: str, after: str, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        outcome, _ = update(store, Golden("demo", before), Golden("demo", after))
        assert outcome.image is not None
        waiting = unindexed(store, DEFAULT_LIMITS)
        for layer in outcome.image.documents.manifest.layers:
            frames = read_index_and_tarsplit(store, layer).frames()
            others = [one for one in waiting if one.blob != layer.digest]
            tables = [read_table(store, one, DEFAULT_LIMITS) for one in others]
            by_table = find_frames(
                store, layer.digest, frames, tables=[one for one in tables if one]
            )
            with open_store(tmp_path) as apart:
                index_blobs(apart, others, DEFAULT_LIMITS)
            by_rows = find_frames(store, layer.digest, frames)
            found = [[blob is not None for blob in its.blobs] for its in (by_table, by_rows)]
            assert found[0] == found[1]
            assert (by_table.payloads, by_table.strangers) == (by_rows.payloads, by_rows.strangers)


def test_frames_are_entered_in_the_index_while_a_download_takes_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Conditions, "now", lambda _: LinkConditions(2, Link(0.001, SLOW), lambda _: 8)
    )
    with warm(tmp_path, OLD) as store:
        until = time.monotonic() + 20

        def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
            while blob.digest == NEW.digest and at < 3000 and not store.frames.holds_rows():
                assert time.monotonic() < until
            return piece

        source = MemorySource(image([NEW]), spans=8, change=change)
        pull(source, store, gaps=EXACT)
        assert [blob for blob, _ in store.frames.unindexed()] == [NEW.digest]
        third = chunked_layer(make_tar(tree(*range(5, 35))))  # of rows and of a table
        outcome = pull(MemorySource(image([third]), spans=8), store, gaps=EXACT)
        assert outcome.receipt.bytes.needed < third.size / 10


def test_a_blob_that_counts_as_whole_is_known_to_have_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path) as store:
        set_whole = store.set_whole

        def killed(blob: Digest, size: int) -> None:
            set_whole(blob, size)
            if blob == OLD.digest:
                raise KeyboardInterrupt

        monkeypatch.setattr(store, "set_whole", killed)
        with pytest.raises(InterruptedPullError):
            pull(MemorySource(image([OLD])), store)
        assert store.is_whole(Digest(OLD.digest))
        outcome = pull(MemorySource(image([NEW]), spans=8), store, gaps=EXACT)
        assert outcome.receipt.layers[0].mode == "partial"


def test_what_came_in_parts_rests_on_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lean(costs: Sequence[WayCost], *_: Any, **__: Any) -> WayCost:
        return next(cost for cost in costs if cost.way == "lean")

    monkeypatch.setattr(way_chooser, "choose", lean)
    with warm(tmp_path, OLD) as store:
        outcome = pull(MemorySource(image([NEW]), spans=8), store)
        assert outcome.receipt.layers[0].proved == "diff_id"
        chunks = {raw(Digest(chunk.digest)) for chunk in NEW.chunks}
        assert store.find_chunks(chunks).keys() == chunks


@pytest.mark.parametrize(("before", "after"), [("demo-v1", "demo-v2"), ("demo-v2", "demo-v1")])
def test_estargz_comes_in_parts_and_identical(before: str, after: str, tmp_path: Path) -> None:
    content = read_layout(FIXTURES / "estargz" / "oci")
    with open_store(tmp_path) as store:
        pull(MemorySource(content, before), store, f"example.com/{before}:t")
        source = MemorySource(content, after, spans=8)
        outcome = pull(source, store, gaps=EXACT)
        assert {layer.kind for layer in outcome.receipt.layers} == {"estargz"}
        for layer in outcome.receipt.layers:
            digest = Digest(layer.digest)
            assert b"".join(store.stream(digest, ByteRange(0, layer.size))) == content.blobs[digest]
        # All that is the same: each change of a header spoils the member before it, and one file is
        # most of the layer.
        assert sum(layer.cached_bytes for layer in outcome.receipt.layers) >= 19_409 + 18_111
        assert_books_balance(outcome, source)


# ── a link that is not what it was taken for ──

FAST, SLOW = 1e12, 1e3  # bytes per second


def files(*seeds: int) -> Layer:
    return chunked_layer(make_tar({f"f{seed}": noise(seed, 20_000) for seed in seeds}))


def of_a_fast_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any work of this machine takes longer than any download, until `SLOW` is the rate."""
    monkeypatch.setattr(ways, "_LATER", 0.0)
    monkeypatch.setattr(layers, "_REPLAN_SECONDS", 0.0)


def test_a_toc_is_not_read_where_the_blob_comes_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_a_fast_link(monkeypatch)
    old, new = files(*range(60)), files(*range(20, 80))
    with warm(tmp_path, old) as store:
        monkeypatch.setattr(
            Conditions, "now", lambda _: LinkConditions(4, Link(0.001, FAST), lambda _: 8)
        )
        source = MemorySource(image([new]), spans=8)
        outcome = pull(source, store)
        assert is_blob(store, new)
        assert source.blob_bytes == new.size + len(image([new]).config)
        assert outcome.receipt.layers[0].reason == "takes less time whole than in parts"
        assert len(store.frames.unindexed()) == 2
        third = files(*range(30, 90))
        outcome = pull(MemorySource(image([third]), spans=8), store, gaps=EXACT)
        assert outcome.receipt.layers[0].mode == "partial"
        assert outcome.receipt.bytes.fetched < third.size / 3


def test_what_a_link_carries_is_not_told_by_its_first_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that nobody knows.

    A connection that has just begun looks slow, and its blob comes sooner all the same.
    """
    of_a_fast_link(monkeypatch)
    old, new = files(*range(60)), files(*range(20, 80))
    toc = new.toc_at
    assert toc is not None
    with warm(tmp_path, old) as store:
        came: list[int] = []

        def conditions(_: Conditions) -> LinkConditions:
            is_begun = sum(came) < toc.end - toc.offset
            return LinkConditions(4, Link(0.001, SLOW if is_begun else FAST), lambda _: 8)

        def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
            came.append(len(piece) if blob.digest == new.digest else 0)
            return piece

        monkeypatch.setattr(Conditions, "now", conditions)
        monkeypatch.setattr(toc_stream, "_STRIDE", 100)
        outcome = pull(
            MemorySource(image([new]), spans=8, piece=100, change=change),
            store,
            "other.example/app:t",
        )
        assert outcome.receipt.layers[0].mode == "whole"
        assert len(store.frames.unindexed()) == 2  # nobody read a table
        assert is_blob(store, new)


# Slower than it was taken for by a factor of a thousand; and yet what is left comes sooner than
# 400 frames of a millisecond each are looked up
SLOWER = LinkConditions(1, Link(0.001, 1e9), lambda _: 8, costs=WorkCosts(frame=1e-3))


@pytest.mark.parametrize(
    ("later", "mode"),
    [(LinkConditions(1, Link(0.001, SLOW), lambda _: 8), "partial"), (SLOWER, "whole")],
    ids=["slow", "slower"],
)
def test_a_layer_that_comes_whole_goes_on_in_parts_where_the_link_is_slow(
    later: LinkConditions, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_a_fast_link(monkeypatch)
    old, new = files(*range(200)), files(*range(10, 205))
    taken, begun, asked = threading.Event(), threading.Event(), list[bool]()
    with warm(tmp_path, old) as store:

        def conditions(_: Conditions) -> LinkConditions:
            asked.append(begun.is_set())
            if sum(asked) > 20 and mode == "whole":
                taken.set()
            return later if begun.is_set() else LinkConditions(1, Link(0.001, FAST), lambda _: 8)

        def replan(self: Downloader, *args: Any) -> None:
            before(self, *args)
            taken.set()

        def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
            assert new.toc_at is not None
            if blob.digest == new.digest and at < new.toc_at.offset - 8:
                begun.set()
                assert taken.wait(20)
            return piece

        before = Downloader.replan
        monkeypatch.setattr(Downloader, "replan", replan)
        monkeypatch.setattr(Conditions, "now", conditions)
        source = MemorySource(image([new]), spans=8, change=change)
        outcome = pull(source, store, jobs=1)
        assert is_blob(store, new)
        assert_books_balance(outcome, source)
        entry = outcome.receipt.layers[0]
        assert (entry.mode, entry.identical) == (mode, True)
        if mode == "partial":
            assert entry.reason is None
            assert outcome.receipt.bytes.fetched < new.size * 0.6
        else:
            assert len(store.frames.unindexed()) == 2  # nobody read a table
    with open_store(tmp_path) as again:
        assert is_blob(again, new)
