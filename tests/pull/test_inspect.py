"""Tables of contents: in which order they are read, and how soon chunks are asked for."""

from __future__ import annotations

import random
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.build.front import Image, chunked_layer, image, make_tar
from tests.helpers.build.layers import Layer
from tests.helpers.harness.pulls import AMD64, open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.formats.budget import ImageBudget
from zchunked.layers.metadata import LayerIndex
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.oci.reference import parse_image
from zchunked.options import GapOptions, Options, Patience
from zchunked.pull.metadata import inspect, toc_stream
from zchunked.pull.metadata.inspect import Inspector, toc_rank
from zchunked.pull.metadata.layer_metadata import LayerMetadata
from zchunked.pull.metadata.toc_fetch import TocFetcher
from zchunked.pull.origin import Origin
from zchunked.pull.session import PullSession
from zchunked.receipt import Receipt

TAR = Digest("sha256:" + "4" * 64)


def layer(seed: int, count: int) -> Layer:
    dice = random.Random(seed)
    return chunked_layer(
        make_tar({f"usr/{seed}/{number:05}": dice.randbytes(700) for number in range(count)})
    )


def made() -> Image:
    """A layer with a long table before one with a short one."""
    return image([layer(1, 300), layer(2, 3)])


def waits(event: threading.Event) -> None:
    assert event.wait(10)


def described(one: Layer) -> Descriptor:
    return Descriptor(one.media_type, Digest(one.digest), len(one.blob), one.annotations)


def test_chunks_of_a_layer_behind_one_with_a_long_table_are_asked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = made()
    monkeypatch.setattr(inspect, "LONG_TOC", 2000)
    assert [toc_rank(described(one), DEFAULT_LIMITS) for one in content.layers] == [3, 0]
    source = MemorySource(content)
    with open_store(tmp_path) as store:
        pull(source, store, jobs=1, gaps=GapOptions(max_gap=0))
    tables = {one.digest: one.toc_at.offset for one in content.layers if one.toc_at}
    asked = [digest for digest, spans in source.asked if spans[0].start < tables.get(digest, 0) - 8]
    assert asked[0] == content.layers[1].digest


def test_a_layer_without_a_table_waits_for_none() -> None:
    assert (
        toc_rank(
            Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", TAR, 10**9), DEFAULT_LIMITS
        )
        == 0
    )


def test_tables_that_are_here_are_read_in_turns_so_the_short_one_is_done_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, done = made(), []
    monkeypatch.setattr(toc_stream, "_TURN", 2000)
    of = LayerIndex.of

    def noted(layer: Descriptor, *rest: object) -> LayerIndex:
        done.append(layer.digest)
        return of(layer, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(LayerIndex, "of", noted)
    with open_store(tmp_path) as store:
        for one in content.layers:
            writer = store.writer(Digest(one.digest), len(one.blob))
            writer.write(0, one.blob)
            writer.close()
        source = MemorySource(content)
        origin = Origin(parse_image("example.com/app:t"), source, source.traffic, None)
        options = Options(platform=AMD64, jobs=2, patience=Patience(0))
        session = PullSession(origin, store, options, Receipt("example.com/app:t"), lambda _: None)
        asked = threading.Event()
        with session.pulling() as pool:
            inspector = Inspector(TocFetcher(session, ImageBudget()))
            pool.submit("read", lambda: waits(asked))
            for one in content.layers:
                pool.submit("fetch", partial(inspector.inspect, described(one), LayerMetadata()))
            waiting = threading.Event()
            while pool._queues["read"].qsize() < 2:
                waiting.wait(0.001)
            asked.set()
            pool.wait(lambda: None)
    assert done == [content.layers[1].digest, content.layers[0].digest]
