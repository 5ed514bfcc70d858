"""Manifests and configs that lie, contradict themselves or aim beside the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import (
    Image,
    Json,
    Layout,
    gzip_layer,
    image,
    index,
    layout,
    make_tar,
    sha256,
)
from tests.helpers.harness.hostile import BAD_DIGESTS, MALFORMED, bench, honest, victim
from tests.helpers.harness.pulls import open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.errors import FormatError, IntegrityError, LimitError
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange

# ── row 1: what a digest or a size promises ──


def swapped(content: Image, digest: str, data: bytes) -> Layout:
    """The registry has other bytes under this digest."""
    found = layout({"t": content})
    for documents in (found.manifests, found.blobs):
        if digest in documents:
            documents[digest] = (
                (documents[digest][0], data) if documents is found.manifests else data  # type: ignore[assignment]
            )
    return found


def fails(
    folder: Path, content: Layout, error: type[Exception], words: str, digest: str | None = None
) -> MemorySource:
    source = MemorySource(content)
    with bench(folder, "cold") as on, pytest.raises(error, match=words):
        on.pull_from(source, digest=Digest(digest) if digest else None)
    with bench(folder, "cold") as on:
        assert not on.store.images()
    return source


def test_manifest_of_another_digest(tmp_path: Path) -> None:
    wanted = honest()
    other = wanted.manifest.replace(b'"schemaVersion":2', b'"schemaVersion": 2')
    fails(
        tmp_path, swapped(wanted, wanted.digest, other), IntegrityError, "manifest", wanted.digest
    )


def test_manifest_of_another_digest_behind_an_index(tmp_path: Path) -> None:
    instance = honest()
    content = layout({"t": index([instance])})
    media_type, data = content.manifests[instance.digest]
    content.manifests[instance.digest] = (media_type, data.replace(b"layer", b"LAYER"))
    fails(tmp_path, content, IntegrityError, "manifest")


def test_endless_manifest(tmp_path: Path) -> None:
    content = layout({"t": honest()})
    digest = content.tags["t"]
    media_type, data = content.manifests[digest]
    content.manifests[digest] = (media_type, data + b" " * (5 << 20))
    fails(tmp_path, content, FormatError, "limit")


def test_index_that_says_its_manifest_is_endless(tmp_path: Path) -> None:
    def lie(value: Json) -> None:
        value["manifests"][0]["size"] = 5 << 20

    source = fails(tmp_path, layout({"t": index([honest()], edit=lie)}), FormatError, "limit")
    assert source.manifests_asked == 1


def test_config_of_another_digest_is_asked_for_twice_and_refused(tmp_path: Path) -> None:
    wanted = honest()
    other = wanted.config.replace(b"2023", b"2024")
    source = fails(tmp_path, swapped(wanted, wanted.config_digest, other), IntegrityError, "config")
    asked = [spans for digest, spans in source.asked if digest == wanted.config_digest]
    assert asked == [(ByteRange(0, len(wanted.config)),)] * 2


@pytest.mark.parametrize(
    ("size", "error"), [(-1, IntegrityError), (5 << 20, FormatError), (1 << 62, FormatError)]
)
def test_config_of_another_size(tmp_path: Path, size: Any, error: Any) -> None:
    def lie(manifest: Json) -> None:
        manifest["config"]["size"] = size if size > 0 else manifest["config"]["size"] + size

    source = fails(tmp_path, layout({"t": image([victim()], edit_manifest=lie)}), error, "config")
    assert size < 0 or not source.asked  # refused before it was asked for


BROKEN_MANIFESTS: dict[str, Callable[[Json], Json | None]] = {
    "negative layer size": lambda m: m["layers"][0].update(size=-1),
    "layer size of 2^63": lambda m: m["layers"][0].update(size=1 << 63),
    "layer size of 1.5": lambda m: m["layers"][0].update(size=1.5),
    "layer size true": lambda m: m["layers"][0].update(size=True),
    "layers and manifests": lambda m: m.update(manifests=[]),
    "no layers": lambda m: {key: value for key, value in m.items() if key != "layers"},
    "no config": lambda m: {key: value for key, value in m.items() if key != "config"},
    "schema 1": lambda m: m.update(schemaVersion=1),
    "schema 3": lambda m: m.update(schemaVersion=3),
    "index by name": lambda m: m.update(mediaType="application/vnd.oci.image.index.v1+json"),
    "five thousand layers": lambda m: m.update(layers=m["layers"] * 5000),
    "one blob, two sizes": lambda m: m["layers"].append(m["layers"][0] | {"size": 5}),
    "annotation that is no text": lambda m: m["layers"][0]["annotations"].update(x=1),
    "config that is a layer": lambda m: m["config"].update(
        mediaType="application/vnd.oci.image.layer.v1.tar"
    ),
    "lone surrogate": lambda m: m["layers"][0].update(mediaType="\ud800"),
}


@pytest.mark.parametrize("edit", BROKEN_MANIFESTS.values(), ids=BROKEN_MANIFESTS)
def test_broken_manifest(tmp_path: Path, edit: Any) -> None:
    with bench(tmp_path, "cold") as on:
        on.refused(image([victim()], edit_manifest=edit), MALFORMED)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"schemaVersion":2,"layers":[',
        b"<html>",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_manifest_that_is_no_manifest(tmp_path: Path, data: Any) -> None:
    content = layout({"t": honest()})
    content.manifests[content.tags["t"]] = (content.manifests[content.tags["t"]][0], data)
    fails(tmp_path, content, FormatError, "manifest")


# ── row 2: diff IDs ──


@pytest.mark.parametrize(
    ("diff_ids", "words"),
    [
        (None, "0 diff IDs"),
        ([], "0 diff IDs"),
        (["sha256:" + "a" * 64] * 2, "2 diff IDs"),
        *[([bad], "diff ID 0") for bad in BAD_DIGESTS.values()],
        ([5], "config"),
        ({}, "config"),
    ],
    ids=repr,
)
def test_diff_ids_that_prove_nothing(tmp_path: Path, diff_ids: Any, words: Any) -> None:
    def edit(config: Json) -> None:
        config["rootfs"]["diff_ids"] = diff_ids

    with bench(tmp_path, "cold") as on:
        on.refused(image([victim()], edit_config=edit), MALFORMED, words)


def test_config_without_rootfs(tmp_path: Path) -> None:
    with bench(tmp_path, "cold") as on:
        on.refused(
            image([victim()], edit_config=lambda config: {"os": "linux"}), MALFORMED, "0 diff IDs"
        )


def test_reading_an_image_as_two(tmp_path: Path) -> None:
    """A document that is index and manifest at once shows two clients two images."""
    both = json.loads(honest().manifest) | json.loads(index([honest()]).manifest)
    data = json.dumps(both).encode()
    content = layout({"t": honest()})
    content.manifests[sha256(data)] = ("application/vnd.oci.image.index.v1+json", data)
    content.tags["t"] = sha256(data)
    fails(tmp_path, content, FormatError, "both layers and other manifests")


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1])
def test_layer_of_absurd_size_sizes_nothing(tmp_path: Path, size: int) -> None:
    def lie(manifest: Any) -> Any:
        manifest["layers"][0]["size"] = size
        return manifest

    source = MemorySource(image([gzip_layer(make_tar({"a": b"x"}))], edit_manifest=lie))
    with open_store(tmp_path) as store, pytest.raises(LimitError, match="the limit is"):
        pull(source, store)
    assert source.asked == []
