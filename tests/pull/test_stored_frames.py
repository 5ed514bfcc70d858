"""Whether tables of contents are read is decided for all layers of an image together."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.helpers.build.front import Image, chunked_layer, image, make_tar
from tests.helpers.harness.pulls import AMD64, IMPATIENT, open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.download.coalesce import Link
from zchunked.oci.reference import parse_image
from zchunked.options import Options
from zchunked.pull.origin import Origin
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


def planned(content: Image, store: Store) -> Receipt:
    receipt, source = Receipt("x"), MemorySource(content, spans=8)
    source.traffic.__init__(time.monotonic)  # type: ignore[misc]
    origin = Origin(parse_image("example.com/app:t"), source, source.traffic)
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
