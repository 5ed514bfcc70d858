"""Layers without a table of contents, or with one that is not theirs.

Whole, and no less suspicious.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import (
    DOCKER_MANIFEST,
    Json,
    Layer,
    gzip_layer,
    image,
    layout,
    tar_layer,
    zstd_layer,
)
from tests.helpers.harness.hostile import (
    COLD_AND_WARM,
    MALFORMED,
    STARTS,
    bench,
    victim,
    victim_tar,
)
from tests.helpers.servers.memory import MemorySource
from zchunked.errors import FormatError, NotFoundError
from zchunked.limits import Limits
from zchunked.oci.digest import Digest

# ── rows 41, 47, 49: ordinary layers ──


def plain(layer: Layer) -> Layer:
    """With the annotations of the victim, left behind by a tool that recompressed it."""
    return replace(layer, annotations=dict(victim().annotations))


ORDINARY = {"gzip": gzip_layer, "tar": tar_layer}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", ORDINARY)
def test_stale_annotations_on_an_ordinary_layer(tmp_path: Path, start: str, kind: Any) -> None:
    with bench(tmp_path, start) as on:
        outcome = on.whole(image([plain(ORDINARY[kind](victim_tar()))]), f"{kind} layer")
        assert outcome.receipt.layers[0].kind == "plain"


@pytest.mark.parametrize("start", STARTS)
def test_stale_annotations_on_a_plain_zstd_layer_are_lies(tmp_path: Path, start: str) -> None:
    with bench(tmp_path, start) as on:
        on.lies(image([plain(zstd_layer(victim_tar()))]), MALFORMED, "is said to lie")


def test_encrypted_layer(tmp_path: Path) -> None:
    def edit(manifest: Json) -> None:
        manifest["layers"][0]["mediaType"] += "+encrypted"

    with bench(tmp_path, "cold") as on:
        on.refused(image([victim()], edit_manifest=edit), MALFORMED, "encrypted")


def test_docker_manifest_loses_the_annotations(tmp_path: Path) -> None:
    with bench(tmp_path, "warm") as on:
        on.whole(image([victim()], media_type=DOCKER_MANIFEST), "without a table of contents")


def test_foreign_layer_is_not_taken_from_elsewhere(tmp_path: Path) -> None:
    def edit(manifest: Json) -> None:
        manifest["layers"][0]["urls"] = [
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
        ]

    content = image([victim()], edit_manifest=edit)
    lacking = layout({"t": content})
    del lacking.blobs[content.layers[0].digest]
    with bench(tmp_path, "cold") as on:
        with pytest.raises(NotFoundError):
            on.pull_from(MemorySource(lacking))
        on.has_nothing_of(content)


@pytest.mark.parametrize("start", STARTS)
def test_decoder_that_stops_after_the_first_frame(tmp_path: Path, start: str) -> None:
    tar = victim_tar()
    parts = [zstd_layer(tar[at : at + 10_000]).blob for at in range(0, len(tar), 10_000)]
    skippable = b"\x5f\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    layer = Layer(skippable + skippable.join(parts) + skippable, tar, zstd_layer(tar).media_type)
    with bench(tmp_path, start) as on:
        on.whole(image([layer]), "without a table of contents")


BROKEN_WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "zstd frame cut short": lambda tar: zstd_layer(tar).blob[:-3],
    "zstd frame, then junk": lambda tar: zstd_layer(tar).blob + b"junk!",
    "zstd frame, then half a magic": lambda tar: zstd_layer(tar).blob + b"\x28\xb5",
    "skippable frame without end": lambda tar: (
        zstd_layer(tar).blob + b"\x50\x2a\x4d\x18\xff\xff\xff\xff"
    ),
    "gzip cut short": lambda tar: gzip_layer(tar).blob[:-9],
    "gzip with a wrong sum": lambda tar: gzip_layer(tar).blob[:-8] + bytes(8),
}


@pytest.mark.parametrize("start", COLD_AND_WARM)
@pytest.mark.parametrize("blob", BROKEN_WHOLE.values(), ids=BROKEN_WHOLE)
def test_whole_layer_that_is_what_its_digest_says_and_still_broken(
    tmp_path: Path, start: str, blob: Any
) -> None:
    layer = Layer(blob(victim_tar()), victim_tar(), zstd_layer(b"").media_type)
    with bench(tmp_path, start) as on:
        on.refused(image([layer]), MALFORMED, "no tar", prove=True)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "blob", [zstd_layer(bytes(1 << 21)).blob, gzip_layer(bytes(1 << 21)).blob], ids=["zstd", "gzip"]
)
def test_bomb_in_a_whole_layer(tmp_path: Path, start: str, blob: Any) -> None:
    content = image([Layer(blob, bytes(1 << 21), zstd_layer(b"").media_type)])
    with bench(tmp_path, start) as on:
        with pytest.raises(FormatError, match="bytes"):
            on.pull(content, limits=Limits(tar_bytes=1 << 20), prove=True)
        on.has_nothing_of(content)


def test_hostile_layer_among_honest_ones(tmp_path: Path) -> None:
    """The honest layers stay, the image does not come to be."""
    good, bad = zstd_layer(b"honest" * 100), victim(edit_toc=lambda toc: toc.update(entries=5))
    content = image([good, bad])
    with bench(tmp_path, "metered") as on:
        for _ in range(2):
            with pytest.raises(FormatError):
                on.pull(content)
            assert not on.store.images()
            assert on.store.proof(Digest(bad.digest), Digest(bad.diff_id)) is None
