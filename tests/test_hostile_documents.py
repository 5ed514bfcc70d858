"""Manifests, configs and annotations that lie, contradict themselves or aim beside the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build import (
    DOCKER_MANIFEST,
    PREFIX,
    Image,
    Json,
    Layer,
    Layout,
    gzip_layer,
    image,
    index,
    layout,
    sha256,
    tar_layer,
    zstd_layer,
)
from tests.helpers.hostile import (
    COLD_AND_WARM,
    MALFORMED,
    STARTS,
    bench,
    honest,
    victim,
    victim_tar,
)
from tests.helpers.memory import MemorySource
from zchunked.digest import Digest
from zchunked.errors import FormatError, IntegrityError, NotFoundError
from zchunked.limits import Limits
from zchunked.ranges import ByteRange

TOC_POSITION, TOC_DIGEST = PREFIX + "manifest-position", PREFIX + "manifest-checksum"
SPLIT_POSITION, SPLIT_DIGEST = PREFIX + "tarsplit-position", PREFIX + "tarsplit-checksum"
STARGZ = "containerd.io/snapshot/stargz/toc.digest"
BAD_DIGESTS = {
    "path traversal": "sha256:../../../../../../tmp/zpull-was-here",
    "absolute path": "/tmp/zpull-was-here",
    "upper case": "sha256:" + "A" * 64,
    "another algorithm": "sha512:" + "a" * 128,
    "md5": "md5:" + "a" * 32,
    "short": "sha256:" + "a" * 63,
    "line end": "sha256:" + "a" * 64 + "\n",
    "digits of another script": "sha256:" + "٣" * 64,
    "empty": "",
    "nul": "sha256:" + "a" * 63 + "\0",
    "escape sequences": "\x1b]0;owned\x07sha256:" + "a" * 64,
}


def annotated(**hooks: Any) -> Image:
    return image([victim(**hooks)])


def marks(**values: str | None) -> Callable[[dict[str, str]], None]:
    """An `edit_annotations`: None takes one away."""
    names = {"toc": TOC_POSITION, "toc_digest": TOC_DIGEST, "split": SPLIT_POSITION, "split_digest": SPLIT_DIGEST, "stargz": STARGZ}

    def edit(annotations: dict[str, str]) -> None:
        for key, value in values.items():
            if value is None:
                del annotations[names[key]]
            else:
                annotations[names[key]] = value

    return edit


# ── row 1: what a digest or a size promises ──


def swapped(content: Image, digest: str, data: bytes) -> Layout:
    """The registry has other bytes under this digest."""
    found = layout({"t": content})
    for documents in (found.manifests, found.blobs):
        if digest in documents:
            documents[digest] = (documents[digest][0], data) if documents is found.manifests else data  # type: ignore[index, assignment]
    return found


def fails(folder: Path, content: Layout, error: type[Exception], words: str, digest: str | None = None) -> MemorySource:
    source = MemorySource(content)
    with bench(folder, "cold") as on, pytest.raises(error, match=words):
        on.pull_from(source, digest=Digest(digest) if digest else None)
    with bench(folder, "cold") as on:
        assert not on.store.images()
    return source


def test_manifest_of_another_digest(tmp_path):
    wanted = honest()
    other = wanted.manifest.replace(b'"schemaVersion":2', b'"schemaVersion": 2')
    fails(tmp_path, swapped(wanted, wanted.digest, other), IntegrityError, "manifest", wanted.digest)


def test_manifest_of_another_digest_behind_an_index(tmp_path):
    instance = honest()
    content = layout({"t": index([instance])})
    media_type, data = content.manifests[instance.digest]
    content.manifests[instance.digest] = (media_type, data.replace(b"layer", b"LAYER"))
    fails(tmp_path, content, IntegrityError, "manifest")


def test_manifest_of_another_size_than_its_index_says(tmp_path):
    def lie(value: Json) -> None:
        value["manifests"][0]["size"] += 1

    fails(tmp_path, layout({"t": index([honest()], edit=lie)}), IntegrityError, "want .* bytes")


def test_endless_manifest(tmp_path):
    content = layout({"t": honest()})
    digest = content.tags["t"]
    media_type, data = content.manifests[digest]
    content.manifests[digest] = (media_type, data + b" " * (5 << 20))
    fails(tmp_path, content, FormatError, "limit")


def test_index_that_says_its_manifest_is_endless(tmp_path):
    def lie(value: Json) -> None:
        value["manifests"][0]["size"] = 5 << 20

    source = fails(tmp_path, layout({"t": index([honest()], edit=lie)}), FormatError, "limit")
    assert source.manifests_asked == 1


def test_config_of_another_digest_is_asked_for_twice_and_refused(tmp_path):
    wanted = honest()
    other = wanted.config.replace(b"2023", b"2024")
    source = fails(tmp_path, swapped(wanted, wanted.config_digest, other), IntegrityError, "config")
    assert source.asked == [(wanted.config_digest, (ByteRange(0, len(wanted.config)),))] * 2


@pytest.mark.parametrize(("size", "error"), [(-1, IntegrityError), (5 << 20, FormatError), (1 << 62, FormatError)])
def test_config_of_another_size(tmp_path, size, error):
    def lie(manifest: Json) -> None:
        manifest["config"]["size"] = size if size > 0 else manifest["config"]["size"] + size

    source = fails(tmp_path, layout({"t": image([victim()], edit_manifest=lie)}), error, "config")
    assert size < 0 or not source.asked  # refused before it was asked for


def deep(manifest: Json) -> Json:
    manifest["annotations"] = "HERE"
    return manifest


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
    "config that is a layer": lambda m: m["config"].update(mediaType="application/vnd.oci.image.layer.v1.tar"),
    "lone surrogate": lambda m: m["layers"][0].update(mediaType="\ud800"),
}


@pytest.mark.parametrize("edit", BROKEN_MANIFESTS.values(), ids=BROKEN_MANIFESTS)
def test_broken_manifest(tmp_path, edit):
    with bench(tmp_path, "cold") as on:
        on.refused(image([victim()], edit_manifest=edit), MALFORMED)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'{"schemaVersion":2,"layers":[', b"<html>"],
    ids=lambda data: repr(data[:20]),
)
def test_manifest_that_is_no_manifest(tmp_path, data):
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
def test_diff_ids_that_prove_nothing(tmp_path, diff_ids, words):
    def edit(config: Json) -> None:
        config["rootfs"]["diff_ids"] = diff_ids

    with bench(tmp_path, "cold") as on:
        on.refused(image([victim()], edit_config=edit), MALFORMED, words)


def test_config_without_rootfs(tmp_path):
    with bench(tmp_path, "cold") as on:
        on.refused(image([victim()], edit_config=lambda config: {"os": "linux"}), MALFORMED, "0 diff IDs")


# ── rows 3 to 7: annotations ──

LEFT_OUT: dict[str, tuple[Callable[[dict[str, str]], None], str]] = {
    "digest without position": (marks(toc=None), "not both"),
    "position without digest": (marks(toc_digest=None), "not both"),
    "position of type 2": (marks(toc="100:100:100:2"), "type 2"),
    "position of type 0": (marks(toc="100:100:100:0"), "type 0"),
    "stargz too": (marks(stargz="sha256:" + "a" * 64), "eStargz"),
    "tar-split position is junk": (marks(split="1:2:3:4"), "tarsplit-position"),
} | {
    f"position {text!r}": (marks(toc=text), "manifest-position")
    for text in [
        "", ":::", "1:2:3", "1:2:3:1:9", "1:2:3:1junk", " 1:2:3:1", "1:2:3:1\n", "+1:2:3:1", "-1:2:3:1", "1_0:2:3:1", "0x10:2:3:1",
        "1:2:3:1.0", "١:2:3:1", "9223372036854775808:2:3:1", "1:2:9223372036854775808:1", "99999999999999999999:2:3:1",
        "1:2:3:\x1b[2J", "9" * 100_000,
    ]
}  # fmt: skip


@pytest.mark.parametrize("start", COLD_AND_WARM)
@pytest.mark.parametrize(("edit", "words"), LEFT_OUT.values(), ids=[name[:60] for name in LEFT_OUT])
def test_annotations_that_say_nothing_usable(tmp_path, start, edit, words):
    with bench(tmp_path, start) as on:
        on.whole(annotated(edit_annotations=edit), words)


def overlapping(annotations: dict[str, str]) -> None:
    offset, length, usize, _ = annotations[TOC_POSITION].split(":")
    annotations[SPLIT_POSITION] = f"{int(offset) + int(length) - 1}:10:{usize}"


IMPOSSIBLE: dict[str, Callable[[dict[str, str]], None]] = {
    "sum overflows 64 bits": marks(toc="9223372036854775807:9223372036854775807:10:1"),
    "ends behind the blob": marks(toc="100:9000000:10:1"),
    "starts behind the blob": marks(toc="900000000:10:10:1"),
    "no length": marks(toc="100:0:10:1"),
    "starts before any frame header": marks(toc="7:10:10:1"),
    "offset zero": marks(toc="0:10:10:1"),
    "tar-split behind the blob": marks(split="100:90000000:10"),
    "tar-split of no length": marks(split="100:0:0"),
    "TOC and tar-split overlap": overlapping,
}


@pytest.mark.parametrize("start", COLD_AND_WARM)
@pytest.mark.parametrize("edit", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_positions_that_cannot_be(tmp_path, start, edit):
    with bench(tmp_path, start) as on:
        content = annotated(edit_annotations=edit)
        on.refused(content, MALFORMED)
        assert on.last is not None


# ── row 8: digests that are no digests ──


@pytest.mark.parametrize("bad", BAD_DIGESTS.values(), ids=BAD_DIGESTS)
def test_digest_in_the_annotations_that_is_a_path(tmp_path, bad):
    with bench(tmp_path, "warm") as on:
        on.refused(annotated(edit_annotations=marks(toc_digest=bad)), MALFORMED, "TOC digest")


@pytest.mark.parametrize("bad", [bad for bad in BAD_DIGESTS.values() if bad], ids=[name for name in BAD_DIGESTS if name != "empty"])
def test_digest_of_the_tar_split_that_is_a_path(tmp_path, bad):
    with bench(tmp_path, "warm") as on:
        on.refused(annotated(generation=3, edit_annotations=marks(split_digest=bad)), MALFORMED, "tar-split digest")
        on.refused(annotated(edit_toc=lambda toc: toc.update(tarSplitDigest=bad)), MALFORMED, "tarSplitDigest")


@pytest.mark.parametrize("where", ["config", "layers"])
@pytest.mark.parametrize("bad", BAD_DIGESTS.values(), ids=BAD_DIGESTS)
def test_descriptor_whose_digest_is_a_path(tmp_path, where, bad):
    def edit(manifest: Json) -> None:
        (manifest["config"] if where == "config" else manifest["layers"][0])["digest"] = bad

    with bench(tmp_path, "cold") as on:
        on.refused(image([victim()], edit_manifest=edit), MALFORMED, "digest")


# ── row 9: above our limits ──


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("limit", ["toc_bytes", "tarsplit_bytes", "tarsplit_decoded_bytes"])
def test_metadata_above_our_limits_is_not_asked_for(tmp_path, start, limit):
    content = honest()
    with bench(tmp_path, start) as on:
        outcome = on.pull(content, limits=Limits(**{limit: 50}))
        on.is_right(outcome, content)
        assert on.last is not None
        entry = outcome.receipt.layers[0]
        assert entry.mode == "whole"
        assert "above our limits" in (entry.reason or "")
        toc_at = content.layers[0].toc_at
        assert toc_at is not None
        first = next(spans for digest, spans in on.last.asked if digest == content.layers[0].digest)
        assert first[0].start != toc_at.offset


def test_toc_that_claims_to_unpack_to_a_petabyte(tmp_path):
    def edit(annotations: dict[str, str]) -> None:
        offset, length, _, kind = annotations[TOC_POSITION].split(":")
        annotations[TOC_POSITION] = f"{offset}:{length}:{1 << 50}:{kind}"

    with bench(tmp_path, "warm") as on:
        on.whole(annotated(edit_annotations=edit), "above our limits")


def test_more_entries_than_our_limit(tmp_path):
    with bench(tmp_path, "warm") as on:
        on.whole(honest(), "entries", limits=Limits(entries_count=5))


# ── rows 41, 47, 49: ordinary layers ──


def plain(layer: Layer) -> Layer:
    """With the annotations of the victim, left behind by a tool that recompressed it."""
    return replace(layer, annotations=dict(victim().annotations))


ORDINARY = {"gzip": gzip_layer, "tar": tar_layer}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", ORDINARY)
def test_stale_annotations_on_an_ordinary_layer(tmp_path, start, kind):
    with bench(tmp_path, start) as on:
        outcome = on.whole(image([plain(ORDINARY[kind](victim_tar()))]), f"{kind} layer")
        assert outcome.receipt.layers[0].kind == "plain"


@pytest.mark.parametrize("start", STARTS)
def test_stale_annotations_on_a_plain_zstd_layer_are_lies(tmp_path, start):
    with bench(tmp_path, start) as on:
        on.refused(image([plain(zstd_layer(victim_tar()))]), MALFORMED, "is said to lie")


def test_encrypted_layer(tmp_path):
    def edit(manifest: Json) -> None:
        manifest["layers"][0]["mediaType"] += "+encrypted"

    with bench(tmp_path, "cold") as on:
        on.refused(image([victim()], edit_manifest=edit), MALFORMED, "encrypted")


def test_docker_manifest_loses_the_annotations(tmp_path):
    with bench(tmp_path, "warm") as on:
        on.whole(image([victim()], media_type=DOCKER_MANIFEST), "without a table of contents")


def test_foreign_layer_is_not_taken_from_elsewhere(tmp_path):
    def edit(manifest: Json) -> None:
        manifest["layers"][0]["urls"] = ["http://169.254.169.254/latest/meta-data", "file:///etc/passwd"]

    content = image([victim()], edit_manifest=edit)
    lacking = layout({"t": content})
    del lacking.blobs[content.layers[0].digest]
    with bench(tmp_path, "cold") as on:
        with pytest.raises(NotFoundError):
            on.pull_from(MemorySource(lacking))
        on.has_nothing_of(content)


@pytest.mark.parametrize("start", STARTS)
def test_decoder_that_stops_after_the_first_frame(tmp_path, start):
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
    "skippable frame without end": lambda tar: zstd_layer(tar).blob + b"\x50\x2a\x4d\x18\xff\xff\xff\xff",
    "gzip cut short": lambda tar: gzip_layer(tar).blob[:-9],
    "gzip with a wrong sum": lambda tar: gzip_layer(tar).blob[:-8] + bytes(8),
}


@pytest.mark.parametrize("start", COLD_AND_WARM)
@pytest.mark.parametrize("blob", BROKEN_WHOLE.values(), ids=BROKEN_WHOLE)
def test_whole_layer_that_is_what_its_digest_says_and_still_broken(tmp_path, start, blob):
    layer = Layer(blob(victim_tar()), victim_tar(), zstd_layer(b"").media_type)
    with bench(tmp_path, start) as on:
        on.refused(image([layer]), MALFORMED, "no tar")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("blob", [zstd_layer(bytes(1 << 21)).blob, gzip_layer(bytes(1 << 21)).blob], ids=["zstd", "gzip"])
def test_bomb_in_a_whole_layer(tmp_path, start, blob):
    content = image([Layer(blob, bytes(1 << 21), zstd_layer(b"").media_type)])
    with bench(tmp_path, start) as on:
        with pytest.raises(FormatError, match="bytes"):
            on.pull(content, limits=Limits(tar_bytes=1 << 20))
        on.has_nothing_of(content)


def test_hostile_layer_among_honest_ones(tmp_path: Path):
    """The honest layers stay, the image does not come to be."""
    good, bad = zstd_layer(b"honest" * 100), victim(edit_toc=lambda toc: toc.update(entries=5))
    content = image([good, bad])
    with bench(tmp_path, "cold") as on:
        for _ in range(2):
            with pytest.raises(FormatError):
                on.pull(content)
            assert not on.store.images()
            assert on.store.proof(Digest(bad.digest), Digest(bad.diff_id)) is None


def test_reading_an_image_as_two(tmp_path):
    """A document that is index and manifest at once shows two clients two images."""
    both = json.loads(honest().manifest) | json.loads(index([honest()]).manifest)
    data = json.dumps(both).encode()
    content = layout({"t": honest()})
    content.manifests[sha256(data)] = ("application/vnd.oci.image.index.v1+json", data)
    content.tags["t"] = sha256(data)
    fails(tmp_path, content, FormatError, "both layers and other manifests")


