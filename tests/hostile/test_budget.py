"""Bombs: what all layers of an image cost together is bounded.

Before anything of it is fetched or hashed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.helpers.build.front import Image, chunked_layer, gzip_layer, image, make_tar
from tests.helpers.harness.hostile import MALFORMED, bench, noise
from zchunked.errors import LimitError, UnsupportedLayerError
from zchunked.formats.budget import ImageBudget
from zchunked.formats.tables.toc_parser import parse_toc
from zchunked.limits import Limits

GiB = 1 << 30
IN_PARTS = ["metered", "warm"]


def layers(count: int, files: int = 5) -> Image:
    return image([
        chunked_layer(make_tar({
            f"{layer}/{file}": noise(3000, 100 * layer + file) for file in range(files)
        }))
        for layer in range(count)
    ])  # fmt: skip


def holes(*sizes: int) -> bytes:
    """A TOC whose chunks are zeros, of sizes that nobody has the bytes of; digests are wrong."""
    entries = [
        {"type": "reg", "name": f"f{at}", "size": size, "digest": "sha256:" + f"{at:064x}",
         "offset": 100 + at, "endOffset": 101 + at, "chunkSize": size, "chunkType": "zeros",
         "chunkDigest": "sha256:" + f"{at:064x}"}
        for at, size in enumerate(sizes)
    ]  # fmt: skip
    return json.dumps({"version": 1, "entries": entries}).encode()


@pytest.mark.parametrize("limits", [Limits(image_entries_count=12), Limits(image_toc_bytes=3_000)])
@pytest.mark.parametrize("start", IN_PARTS)
def test_layers_whose_tables_together_are_too_large_come_whole(
    tmp_path: Path, start: str, limits: Limits
) -> None:
    """Of five layers some fit; the image is right all the same."""
    content = layers(5)
    with bench(tmp_path, start) as on:
        outcome = on.pull(content, limits=limits)
        on.is_right(outcome, content)
        modes = [entry.mode for entry in outcome.receipt.layers]
        assert 0 < modes.count("whole") < 5
        assert any(
            "the image's tables of contents have" in (entry.reason or "")
            for entry in outcome.receipt.layers
        )


def test_a_table_that_is_read_again_is_counted_once() -> None:
    budget = ImageBudget(Limits(image_entries_count=10))
    for _ in range(3):
        budget.layer("a").take_entries(6)
    with pytest.raises(UnsupportedLayerError, match="12 entries"):
        budget.layer("b").take_entries(6)
    budget.layer("c").take_entries(4)  # what was refused is not held against others


@pytest.mark.parametrize("sizes", [(2 * GiB,), (1 << 62,), tuple(range(1 << 20, (1 << 20) + 3000))])
def test_zeros_beyond_the_limit_are_not_hashed(sizes: tuple[int, ...]) -> None:
    began = time.process_time()
    with pytest.raises((UnsupportedLayerError, LimitError)):
        parse_toc(holes(*sizes), 1 << 40)
    assert time.process_time() - began < 1.0


def test_distinct_holes_cost_no_more_than_the_longest() -> None:
    began = time.process_time()
    with pytest.raises(Exception, match="not of zeros"):
        parse_toc(holes(*range(1 << 20, (1 << 20) + 900)), 1 << 40)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("start", IN_PARTS)
def test_files_larger_than_their_bytes_can_be_come_whole(tmp_path: Path, start: str) -> None:
    """One frame that a thousand files lie in: the blob pays for them once."""
    content = image([chunked_layer(make_tar({f"f{at}": noise(2000, 1) for at in range(60)}))])
    with bench(tmp_path, start) as on:
        outcome = on.pull(content, limits=Limits(image_tar_bytes=0, image_tar_ratio=20))
        on.is_right(outcome, content)


@pytest.mark.parametrize("count", [1, 3])
def test_a_bomb_of_several_whole_layers_is_refused_as_one(tmp_path: Path, count: int) -> None:
    content = image([gzip_layer(make_tar({f"f{at}": bytes(2 << 20)})) for at in range(count)])
    with bench(tmp_path, "metered") as on:
        on.refused(
            content,
            MALFORMED,
            "decompression bomb",
            limits=Limits(image_tar_bytes=1 << 20),
            prove=True,
        )


def test_an_image_that_is_honestly_empty_inside_is_taken(tmp_path: Path) -> None:
    content = image([gzip_layer(make_tar({"f": bytes(2 << 20)}))])
    with bench(tmp_path, "metered") as on:
        on.is_right(on.pull(content, prove=True), content)
