"""The whole pull, from memory into a store: every golden image, cold, again, and as an update."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from tests.helpers.build.front import Entry, chunked_layer, gzip_layer, image, make_tar, read_layout
from tests.helpers.build.golden import Golden, all_golden
from tests.helpers.harness.pulls import Outcome, open_store, pull
from tests.helpers.harness.rough import files
from tests.helpers.servers.memory import MemorySource
from zchunked.errors import IntegrityError, TransientError
from zchunked.export.images.layers import layers_of
from zchunked.oci.digest import Digest, from_raw
from zchunked.oci.documents import Descriptor
from zchunked.oci.platform import Platform, parse_platform
from zchunked.options import GapOptions
from zchunked.receipt import Receipt
from zchunked.store import Store

SINGLE = [golden for golden in all_golden() if not golden.is_index]
VERIFIABLE = [golden for golden in SINGLE if golden.verifiable]
UNVERIFIABLE = [golden for golden in SINGLE if not golden.verifiable]


def source_of(golden: Golden, **how: int) -> MemorySource:
    return MemorySource(read_layout(golden.layout), golden.tag, **how)  # type: ignore[arg-type]


def assert_books_balance(outcome: Outcome, source: MemorySource) -> None:
    spent = outcome.receipt.bytes
    assert min(spent.needed, spent.metadata, spent.gap, spent.wasted, spent.cached) >= 0
    assert (
        spent.fetched
        == spent.needed + spent.metadata + spent.gap + spent.wasted
        == source.traffic.fetched
    )


def assert_is(golden: Golden, outcome: Outcome, store: Store) -> None:
    """Config digest, diff IDs and the rebuilt tars are those that the fixture's truths name."""
    assert outcome.image is not None
    assert outcome.receipt.image_id == golden.expect["config"]["digest"]
    assert list(outcome.image.config.diff_ids) == golden.expect["diff_ids"]
    assert outcome.receipt.bytes.image == golden.expect["image_bytes"]
    for content, diff_id in zip(
        layers_of(store, outcome.image), golden.expect["diff_ids"], strict=True
    ):
        assert "sha256:" + hashlib.sha256(b"".join(content.tar())).hexdigest() == diff_id


@pytest.mark.parametrize("golden", VERIFIABLE, ids=str)
@pytest.mark.parametrize("piece", [7, 65536])
def test_cold_pull_of_a_golden_image_is_exact_and_balanced(
    golden: Golden, piece: int, tmp_path: Path
) -> None:
    source = source_of(golden, piece=piece)
    with open_store(tmp_path) as store:
        outcome = pull(source, store)
        assert_is(golden, outcome, store)
        assert_books_balance(outcome, source)
        assert outcome.receipt.bytes.wasted == 0


@pytest.mark.parametrize("golden", VERIFIABLE, ids=str)
def test_second_pull_of_a_tag_asks_for_its_manifest_and_nothing_else(
    golden: Golden, tmp_path: Path
) -> None:
    source = source_of(golden)
    with open_store(tmp_path) as store:
        pull(source, store)
        source.manifests_asked = 0
        again = pull(source, store)
        assert source.manifests_asked == again.receipt.requests == 1
        assert source.asked == []
        assert {layer.mode for layer in again.receipt.layers} <= {"cached"}
        assert again.receipt.bytes.cached == again.receipt.bytes.image


@pytest.mark.parametrize("golden", UNVERIFIABLE, ids=str)
@pytest.mark.parametrize(
    "gaps",
    [GapOptions(), GapOptions(exact=True), GapOptions(max_gap=0)],
    ids=["", "exact", "metered"],
)
def test_unverifiable_image_is_refused_however_it_comes_and_nothing_stays(
    golden: Golden, gaps: GapOptions, tmp_path: Path
) -> None:
    source = source_of(golden)
    outcome = Outcome(Receipt("x"))
    with open_store(tmp_path) as store:
        with pytest.raises(IntegrityError, match="unpacks to") as caught:
            pull(source, store, outcome=outcome, gaps=gaps, prove=True)
        assert caught.value.exit_code == 6
        assert store.images() == []
        bad = [layer for layer in golden.layers if "decompresses_to" in layer]
        for layer in bad:
            assert store.covered(layer["digest"]) == []
        assert_books_balance(outcome, source)


@pytest.mark.parametrize(
    ("before", "after"),
    [("demo-v1", "demo-v2"), ("g1-old", "demo-v2"), ("g1-old", "demo-v1"), ("demo-v1", "g1-old")],
)
def test_an_update_fetches_what_is_missing_and_little_else(
    before: str, after: str, tmp_path: Path
) -> None:
    source = source_of(Golden("demo", after))
    with open_store(tmp_path) as store:
        pull(source_of(Golden("demo", before)), store)
        outcome = pull(source, store, gaps=GapOptions(lean=True))
        assert_is(Golden("demo", after), outcome, store)
        assert_books_balance(outcome, source)
    truth = Golden("demo", after).expect["updates"].get(f"from:{before}")
    if truth and after != "g1-old":  # it has no tar-split, so it comes the exact way
        assert outcome.receipt.bytes.needed == truth["missing_bytes"]
        assert source.blob_bytes <= 1.10 * truth["ideal_bytes"] + golden_config_size(after)


def golden_config_size(tag: str) -> int:
    return int(Golden("demo", tag).expect["config"]["size"])


def test_metered_mode_buys_no_gap(tmp_path: Path) -> None:
    source = source_of(Golden("demo", "demo-v2"))
    with open_store(tmp_path) as store:
        pull(source_of(Golden("demo", "demo-v1")), store)
        outcome = pull(source, store, gaps=GapOptions(max_gap=0))
    # Eight bytes lie between table of contents and tar-split, in the one range that brings both.
    assert outcome.receipt.bytes.gap <= 8


def test_exact_mode_keeps_the_registrys_blobs(tmp_path: Path) -> None:
    golden = Golden("demo", "demo-v1")
    with open_store(tmp_path) as store:
        outcome = pull(source_of(golden), store, gaps=GapOptions(exact=True))
        assert [layer.mode for layer in outcome.receipt.layers] == ["whole", "whole"]
        assert all(store.is_whole(layer["digest"]) for layer in golden.layers)
        assert_is(golden, outcome, store)


@pytest.mark.parametrize("tag", ["multi-platform", "multi-platform-mixed"])
@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_of_two_instances_of_a_platform_the_zstd_one_is_pulled(
    tag: str, platform: str, tmp_path: Path
) -> None:
    golden = Golden("demo", tag)
    want = parse_platform(platform)
    assert want is not None
    choice = golden.expect["choose"]
    expected = choice.get(platform) or choice.get(platform + "/v8")
    with open_store(tmp_path) as store:
        outcome = pull(source_of(golden), store, platform=want)
    assert outcome.receipt.manifest_digest == expected


def test_a_host_without_ranges_gives_whole_layers_and_says_so(tmp_path: Path) -> None:
    golden = Golden("demo", "demo-v2")
    source = source_of(golden)
    source.ranges = False
    with open_store(tmp_path) as store:
        outcome = pull(source, store, gaps=GapOptions(lean=True))
        assert_is(golden, outcome, store)
        assert_books_balance(outcome, source)
    assert {(layer.mode, layer.reason) for layer in outcome.receipt.layers} == {
        ("whole", "its host serves no ranges")
    }
    assert source.blob_bytes == golden.expect["image_bytes"]


def test_ordinary_layers_come_whole_with_a_reason(tmp_path: Path) -> None:
    made = image(
        [gzip_layer(make_tar({"a": b"1" * 5000})), chunked_layer(make_tar({"b": b"2" * 5000}))]
    )
    source = MemorySource(made)
    with open_store(tmp_path) as store:
        outcome = pull(source, store)
    first = outcome.receipt.layers[0]
    assert (first.kind, first.mode) == ("plain", "whole")
    assert first.reason == "gzip layer without a table of contents"


def test_a_layer_that_goes_on_says_so_and_blames_no_encoder(tmp_path: Path) -> None:
    made = image([chunked_layer(make_tar(files(1, 20, 10_000)))])
    (layer,) = made.layers
    with open_store(tmp_path) as store:
        writer = store.writer(Digest(layer.digest), layer.size)
        writer.write(0, layer.blob[: layer.size // 2])
        writer.close()
        outcome = pull(MemorySource(made), store, gaps=GapOptions(exact=True))
    assert outcome.receipt.layers[0].reason == "the rest of it is not in the store"


def test_chunks_are_found_across_images_and_layers(tmp_path: Path) -> None:
    shared = {f"f{n}": hashlib.sha256(bytes([n])).digest() * 400 for n in range(20)}
    one = image([chunked_layer(make_tar(shared))])
    two = image(
        [
            chunked_layer(make_tar({"new": b"new" * 999})),
            chunked_layer(make_tar({f"other/{n}": d for n, d in shared.items()})),
        ]
    )
    source = MemorySource(two)
    with open_store(tmp_path) as store:
        pull(MemorySource(one), store)
        outcome = pull(source, store, name="example.com/other:t")
    layer = outcome.receipt.layers[1]
    assert layer.mode == "partial"
    assert layer.fetched_bytes < 5000
    assert layer.cached_bytes > 0


def test_a_layer_listed_twice_is_fetched_once(tmp_path: Path) -> None:
    layer = chunked_layer(make_tar({"a": bytes(range(256)) * 100}))
    source = MemorySource(image([layer, layer]))
    with open_store(tmp_path) as store:
        outcome = pull(source, store)
        assert outcome.image is not None
        assert len(layers_of(store, outcome.image)) == 2
    assert source.blob_bytes < layer.size + 2000


def test_a_chunk_that_comes_wrong_once_is_fetched_again_and_counted_as_waste(
    tmp_path: Path,
) -> None:
    golden = Golden("demo", "demo-v2")
    spoiled: list[int] = []

    def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
        if len(piece) == 1000 and blob.size > 100_000 and not spoiled:
            spoiled.append(at)
            return bytes([piece[0] ^ 1]) + piece[1:]
        return piece

    source = source_of(golden)
    source.change = change
    with open_store(tmp_path) as store:
        pull(source_of(Golden("demo", "demo-v1")), store)
        outcome = pull(source, store)
        assert_is(golden, outcome, store)
        assert_books_balance(outcome, source)
    assert spoiled
    assert outcome.receipt.bytes.wasted > 0


def test_a_chunk_that_comes_wrong_twice_is_an_integrity_error_and_is_not_kept(
    tmp_path: Path,
) -> None:
    golden = Golden("demo", "demo-v2")
    chunk = next(
        c
        for c in golden.layers[1]["chunks"]
        if c["file"] == "opt/harbour/data/tides.csv" and c["end"] - c["start"] > 40
    )
    layer = golden.layers[1]["digest"]

    def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
        where = chunk["start"] + 20 - at
        if blob.digest == layer and 0 <= where < len(piece):
            return piece[:where] + bytes([piece[where] ^ 1]) + piece[where + 1 :]
        return piece

    source = source_of(golden)
    source.change = change
    outcome = Outcome(Receipt("x"))
    with open_store(tmp_path) as store:
        with pytest.raises(IntegrityError):
            pull(source, store, outcome=outcome, gaps=GapOptions(max_gap=0))
        assert from_raw(bytes.fromhex(chunk["digest"][7:]))
        assert store.find_chunks([bytes.fromhex(chunk["digest"][7:])]) == {}
        assert_books_balance(outcome, source)
        source.change = None
        assert_is(golden, pull(source, store), store)


@pytest.mark.parametrize("cut_at", [0, 1, 50_000, 120_000, 231_000])
def test_a_broken_pull_goes_on_where_it_was(cut_at: int, tmp_path: Path) -> None:
    golden = Golden("demo", "demo-v1")
    clean = source_of(golden)
    with open_store(tmp_path / "clean") as store:
        pull(clean, store)
    clean_bytes = clean.traffic.fetched

    left = [cut_at]

    def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
        if left[0] <= 0:
            raise TransientError("the link is gone")
        left[0] -= len(piece)
        return piece

    source = source_of(golden)
    source.change = change
    outcome = Outcome(Receipt("x"))
    with open_store(tmp_path) as store:
        with pytest.raises(Exception, match="the link is gone"):
            pull(source, store, outcome=outcome)
        assert_books_balance(outcome, source)
        first = source.traffic.fetched
    source.change = None
    with open_store(tmp_path) as store:
        assert_is(golden, pull(source, store), store)
    manifest = golden.expect["manifest"]["size"]
    # other gaps may be bought
    assert first + source.traffic.fetched <= clean_bytes + manifest + 600


def test_the_wrong_platform_of_a_single_image_is_taken_as_it_is(tmp_path: Path) -> None:
    made = image([chunked_layer(make_tar([Entry("x", b"y")]))])
    with open_store(tmp_path) as store:
        outcome = pull(MemorySource(made), store, platform=Platform("linux", "s390x"))
    assert outcome.receipt.platform == "linux/amd64"


def test_the_rebuilt_tar_is_a_tar(tmp_path: Path) -> None:
    golden = Golden("demo", "demo-v2")
    with open_store(tmp_path) as store:
        outcome = pull(source_of(golden), store)
        assert outcome.image is not None
        for number, content in enumerate(layers_of(store, outcome.image)):
            path = tmp_path / f"{number}.tar"
            path.write_bytes(b"".join(content.tar()))
            with tarfile.open(path) as tar:
                names = [member.name for member in tar]
            assert names == [entry["name"].rstrip("/") for entry in golden.entries(number)]
