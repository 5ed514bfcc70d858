"""Pulls that end with the registry's own blobs, put together from frames of older versions and what is fetched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.helpers.build.front import read_layout
from tests.helpers.build.golden import Golden
from tests.helpers.harness.pulls import Outcome, open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.export.layers import layers_of, manifest_of
from zchunked.oci.digest import Digest
from zchunked.options import GapOptions
from zchunked.ranges import ByteRange
from zchunked.store import Store

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


def update(store: Store, before: Golden, after: Golden, frugality: GapOptions = EXACT) -> tuple[Outcome, MemorySource]:
    pull(source_of(before), store, f"example.com/{before.tag}:t", frugality=frugality)
    source = source_of(after)
    return pull(source, store, frugality=frugality), source


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
    assert spent.fetched == spent.needed + spent.metadata + spent.gap + spent.wasted == source.traffic.fetched


@pytest.mark.parametrize("frugality", [EXACT, GapOptions()], ids=["exact", "as planned"])
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_an_update_ends_with_the_registrys_blobs(
    before: str, after: str, frugality: GapOptions, tmp_path: Path
) -> None:
    golden = Golden("demo", after)
    with open_store(tmp_path) as store:
        outcome, source = update(store, Golden("demo", before), golden, frugality)
        assert_identical(store, golden, outcome)
        assert_books_balance(outcome, source)
        assert outcome.receipt.bytes.wasted == 0
        assert source.blob_bytes <= golden.expect["image_bytes"]
        if "g1-old" not in (before, after):
            assert source.blob_bytes < golden.expect["image_bytes"] / 2
