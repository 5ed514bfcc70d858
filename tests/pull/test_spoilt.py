"""What the disk has spoilt of layers that were proved is fetched again, whichever pull reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.build.front import (
    PREFIX,
    Json,
    Part,
    chunked_layer,
    every,
    gzip_layer,
    image,
    make_tar,
    tar_layer,
)
from tests.helpers.harness.hostile import flipped, noise
from tests.helpers.harness.pulls import open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.errors import IntegrityError
from zchunked.export.images.layers import layers_of
from zchunked.options import GapOptions

NAME = "example.com/app:t"
TAR = make_tar({"etc/app.conf": noise(9_000, 1), "bin/app": noise(30_000, 2)})
LEAN, EXACT = GapOptions(max_gap=0), GapOptions(exact=True)
LAYERS = {"gzip": gzip_layer(TAR), "tar": tar_layer(TAR), "chunked": chunked_layer(TAR)}


def spoil(folder: Path, part: bytes) -> None:
    """Flip a bit in the middle of these stored bytes."""
    for path in (folder / "store" / "blobs").iterdir():
        data = path.read_bytes()
        if (at := data.find(part)) >= 0:
            path.write_bytes(flipped(data, at + len(part) // 2))
            return
    pytest.fail("is not stored in one piece")


@pytest.mark.parametrize("kind", LAYERS)
def test_a_whole_blob_is_spoilt_before_its_tar_is_proved(kind: str, tmp_path: Path) -> None:
    layer = LAYERS[kind]
    made = image([layer])
    with open_store(tmp_path) as store:
        pull(MemorySource(made), store)
        spoil(tmp_path, layer.blob[: layer.size // 2])
        outcome = pull(MemorySource(made), store, prove=True)
        (taken,) = outcome.receipt.layers
        assert (taken.proved, taken.identical) == ("both", True)
        spent = outcome.receipt.bytes
        assert spent.fetched == spent.needed + spent.metadata + spent.gap + spent.wasted
        assert 0 < spent.fetched <= spent.image + len(made.manifest)


@pytest.mark.parametrize("table", ["toc_at", "tar_split_at"])
@pytest.mark.parametrize("is_listed", [True, False], ids=["listed", "removed"])
def test_a_stored_table_is_spoilt(table: str, tmp_path: Path, *, is_listed: bool) -> None:
    layer = chunked_layer(TAR, cut=every(4096))
    made = image([layer])
    at: Part = getattr(layer, table)
    with open_store(tmp_path) as store:
        pull(MemorySource(made), store, gaps=LEAN)
        spoil(tmp_path, layer.blob[at.offset : at.end])
        if not is_listed:
            store.collector().forget_names([(NAME, "linux/amd64")])
        outcome = pull(MemorySource(made), store, gaps=EXACT)
        assert outcome.receipt.layers[0].identical
        assert outcome.receipt.bytes.fetched < layer.size // 3


def test_a_manifest_that_lies_about_a_stored_table_spoils_nothing(tmp_path: Path) -> None:
    layer = chunked_layer(TAR)

    def edit(manifest: Json) -> None:
        manifest["layers"][0]["annotations"][PREFIX + "manifest-checksum"] = "sha256:" + "1" * 64

    with open_store(tmp_path) as store:
        first = pull(MemorySource(image([layer])), store, gaps=LEAN)
        liar = MemorySource(image([layer], edit_manifest=edit))
        with pytest.raises(IntegrityError, match="TOC of layer"):
            pull(liar, store, "evil.example/app:t", gaps=EXACT)
        assert first.image is not None
        (content,) = layers_of(store, first.image)
        assert b"".join(content.tar()) == TAR
