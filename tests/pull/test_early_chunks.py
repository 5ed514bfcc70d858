"""A run that goes on where a killed one was.

It asks for content before it has read a long table of contents again.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from tests.helpers.build.front import Entry, chunked_layer, image, make_tar
from tests.helpers.build.layers import Layer
from tests.helpers.harness.pulls import open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.download.coalesce import Link
from zchunked.formats.tables.toc_parser import TocParser
from zchunked.formats.tables.toc_reader import TocReader
from zchunked.layers import index_frames
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.options import GapOptions
from zchunked.pull.metadata import toc_fetch, toc_stream
from zchunked.pull.planning.estimates import LinkConditions
from zchunked.pull.planning.request_shape import early_runs
from zchunked.ranges import ByteRange, total
from zchunked.store import Store

EXACT, LEAN = GapOptions(exact=True), GapOptions(lean=True)


def in_frames(frame: bytes) -> bytes:
    """A table of this length would be decoded at its end, but for this."""
    text = zstandard.ZstdDecompressor().decompressobj().decompress(frame)
    return b"".join(zstandard.compress(text[at : at + 4000]) for at in range(0, len(text), 4000))


def layer(*seeds: int) -> Layer:
    """Of one file for each seed, which makes its content."""
    tar = make_tar([Entry(f"f{seed:03}", random.Random(seed).randbytes(900)) for seed in seeds])
    return chunked_layer(tar, edit_toc_frame=in_frames)


OLD, NEW = layer(*range(0, 200, 3)), layer(*range(200))
assert NEW.toc_at is not None
TOC = ByteRange(NEW.toc_at.offset, NEW.toc_at.end)


@contextmanager
def interrupted(tmp_path: Path, *here: ByteRange, old: bool = True) -> Iterator[Store]:
    """A store that has these bytes of the new layer, and the old one."""
    with open_store(tmp_path) as store:
        if old:
            pull(MemorySource(image([OLD])), store, "example.com/old:t")
        writer = store.writer(Digest(NEW.digest), NEW.size)
        for span in here:
            writer.write(span.start, NEW.blob[span.start : span.end])
        writer.close()
        yield store


@pytest.fixture(autouse=True)
def long_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred files are a long table, read in many turns."""
    monkeypatch.setattr(toc_fetch, "LONG_TOC", 1)
    monkeypatch.setattr(toc_stream, "_TURN", 2000)
    defaults = TocParser.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "batch_bytes", 1000)


def asked_twice(source: MemorySource) -> int:
    spans = sorted(span for digest, run in source.asked if digest == NEW.digest for span in run)
    reach = twice = 0
    for start, end in spans:
        twice += max(0, min(reach, end) - start)
        reach = max(reach, end)
    return twice


@pytest.mark.parametrize("way", [EXACT, LEAN, GapOptions()], ids=["exact", "lean", "as it thinks"])
def test_content_is_asked_for_before_the_table_is_read(
    way: GapOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, feeds = MemorySource(image([NEW]), spans=4), []
    feed = TocReader.feed

    def slow(self: TocReader, piece: bytes) -> None:
        """The last turn waits until content is asked for."""
        feeds.append(len(piece) if self._layer.digest == NEW.digest else 0)
        waited = threading.Event()
        for _ in range(1000 if piece and sum(feeds) == TOC.size else 0):
            if any(
                run[0].start < TOC.start - 8 for digest, run in source.asked if digest == NEW.digest
            ):
                break
            waited.wait(0.01)
        else:
            assert sum(feeds) < TOC.size, "nobody asked for content"
        feed(self, piece)

    with interrupted(tmp_path, TOC) as store:
        monkeypatch.setattr(TocReader, "feed", slow)
        outcome = pull(source, store, gaps=way)
        assert outcome.receipt.bytes.wasted == 0
        assert asked_twice(source) == 0


@pytest.mark.parametrize("way", [EXACT, LEAN, GapOptions()], ids=["exact", "lean", "as it thinks"])
@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize(
    "here", [[TOC], [ByteRange(1000, 30_000), TOC], [ByteRange(90_000, NEW.size)]]
)
def test_it_costs_what_it_would_cost_without(
    jobs: int, way: GapOptions, here: list[ByteRange], tmp_path: Path
) -> None:
    costs = []
    for name in ("early", "late"):
        with pytest.MonkeyPatch.context() as patch, interrupted(tmp_path / name, *here) as store:
            if name == "late":
                patch.setattr(toc_fetch, "LONG_TOC", 1 << 30)
            source = MemorySource(image([NEW]), spans=4)
            outcome = pull(source, store, jobs=jobs, gaps=way)
            assert outcome.receipt.bytes.wasted == asked_twice(source) == 0
            assert outcome.receipt.layers[0].proved
            costs.append(source.blob_bytes)
    early, late = costs
    assert early <= late * 1.02 + 500


def test_headers_come_with_the_payloads_between_them(tmp_path: Path) -> None:
    """Fetched later, the header frames beside each would be two parts more."""
    parts = []
    before = image([layer(*(seed if seed % 4 else seed + 1000 for seed in range(200)))])
    for name in ("early", "late"):
        with pytest.MonkeyPatch.context() as patch, open_store(tmp_path / name) as store:
            pull(MemorySource(before), store, "example.com/old:t")
            store.forget(Digest(NEW.digest))
            writer = store.writer(Digest(NEW.digest), NEW.size)
            writer.write(TOC.start, NEW.blob[TOC.start : TOC.end])
            writer.close()
            if name == "late":
                patch.setattr(toc_fetch, "LONG_TOC", 1 << 30)
            source = MemorySource(image([NEW]), spans=400)
            outcome = pull(source, store, gaps=EXACT)
            assert outcome.receipt.layers[0].mode == "partial"
            parts.append(sum(len(run) for digest, run in source.asked if digest == NEW.digest))
    early, late = parts
    assert early <= late + 10


def test_a_layer_that_was_coming_whole_goes_on_without_its_table(tmp_path: Path) -> None:
    here = ByteRange(0, 50_000)
    source = MemorySource(image([NEW]))
    with interrupted(tmp_path, here, old=False) as store:
        outcome = pull(source, store)
    assert outcome.receipt.layers[0].mode == "whole"
    assert (
        total([span for digest, run in source.asked if digest == NEW.digest for span in run])
        == NEW.size - here.size
    )
    assert all(run[0].start < TOC.start for digest, run in source.asked[:2] if digest == NEW.digest)


def test_frames_that_were_entered_before_a_kill_are_not_entered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_frames, "_AT_ONCE", 50)
    with open_store(tmp_path) as store:
        pull(MemorySource(image([OLD])), store)
        (one,) = index_frames.unindexed(store, DEFAULT_LIMITS)
        blob = one.blob
        entered: list[int] = []
        add = store.frames.add

        def counted(*rows: object, done: int | None = None) -> None:
            entered.append(done or 0)
            add(*rows, done=done)  # type: ignore[arg-type]
            if len(entered) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(store.frames, "add", counted)
        with pytest.raises(KeyboardInterrupt):
            index_frames.index_blobs(store, [one], DEFAULT_LIMITS)
        assert len(store.frames.unindexed()) == 1
        index_frames.index_blobs(store, [one], DEFAULT_LIMITS)
        assert entered[:3] == [50, 100, 138]
        assert store.frames.unindexed() == []
        assert store.frames.indexed_to(blob) == 0
        assert len(store.chunks_of(Digest(OLD.digest))) == len(OLD.chunks)


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_host_that_has_lost_its_ranges_sends_the_layer_once(jobs: int, tmp_path: Path) -> None:
    source = MemorySource(image([NEW]), ranges=False)
    with interrupted(tmp_path, TOC, ByteRange(5000, 40_000)) as store:
        outcome = pull(source, store, jobs=jobs)
        assert store.is_whole(Digest(NEW.digest))
    assert outcome.receipt.layers[0].mode == "whole"
    assert [run for digest, run in source.asked if digest == NEW.digest] == [
        (ByteRange(0, NEW.size),)
    ]


@pytest.mark.parametrize("way", [EXACT, LEAN], ids=["exact", "lean"])
def test_content_that_comes_damaged_early_comes_again(way: GapOptions, tmp_path: Path) -> None:
    first = next(chunk for chunk in NEW.chunks if chunk.file == "f001")
    left = [1]

    def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
        if blob.digest == NEW.digest and left[0] and at <= first.start + 60 < at + len(piece):
            left[0] -= 1
            return piece[: first.start + 60 - at] + b"?" + piece[first.start + 61 - at :]
        return piece

    source = MemorySource(image([NEW]), spans=4, change=change)
    with interrupted(tmp_path, TOC) as store:
        outcome = pull(source, store, gaps=way)
    assert outcome.receipt.layers[0].proved
    assert 0 < outcome.receipt.bytes.wasted < 30_000
    assert left == [0]


@pytest.mark.parametrize("round_trip", [0.001, 0.05])
def test_early_chunks_share_requests(round_trip: float) -> None:
    """Also those of a near host, which a plan asks one by one where that saves bytes."""
    spans = [ByteRange(at, at + 900) for at in range(0, 2_000_000, 3000)]
    blob = Descriptor("application/octet-stream", Digest("sha256:" + "0" * 64), 2_000_000)
    now = LinkConditions(8, Link(round_trip, 1e7), lambda _: 100)
    runs = early_runs(GapOptions(), lambda: now, blob, spans)
    assert len(runs) <= len(spans) / 20
