"""The OCI and Docker documents: strict about what decides, blind to the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.build.front import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    ZSTD_INSTANCE,
    Json,
    chunked_layer,
    dumps,
    gzip_layer,
    image,
    index,
    make_tar,
)
from tests.helpers.build.golden import Golden, all_golden
from tests.helpers.build.mutants import json_mutants, mutants
from zchunked.errors import ArtifactError, FormatError, LimitError, NotFoundError
from zchunked.limits import Limits
from zchunked.oci.digest import Digest
from zchunked.oci.documents import (
    Config,
    Descriptor,
    Index,
    Instance,
    Manifest,
    candidates,
    parse_config,
    parse_document,
)
from zchunked.oci.platform import Platform, normalised, parse_platform, this_platform

TAR = make_tar({"a": b"hello\n"})
IMAGE = image([chunked_layer(TAR), gzip_layer(TAR)])
INDEX = index([(IMAGE, ZSTD_INSTANCE), image([gzip_layer(TAR)], platform="linux/arm64/v8")])
DIGEST = "sha256:" + "0" * 64
DESCRIPTOR: Json = {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 5}
PLAIN: Json = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": DESCRIPTOR, "layers": []}


def manifest(**changes: Any) -> bytes:
    return dumps({key: value for key, value in (PLAIN | changes).items() if value is not ...})


# ── manifests and indexes ──


def test_a_manifest_lists_config_and_layers() -> None:
    found = parse_document(IMAGE.manifest, OCI_MANIFEST)
    assert isinstance(found, Manifest)
    assert found.media_type == OCI_MANIFEST
    assert found.config == Descriptor(OCI_CONFIG, Digest(IMAGE.config_digest), len(IMAGE.config))
    assert [(layer.digest, layer.size) for layer in found.layers] == [
        (one.digest, one.size) for one in IMAGE.layers
    ]
    assert found.layers[0].annotations == IMAGE.layers[0].annotations
    assert found.layers[1].annotations == {}


def test_of_a_layers_urls_those_of_the_web_are_kept() -> None:
    urls = [
        "https://a.example/x?y=1",
        "HTTP://[::1]:5/x",
        "ftp://a.example/x",
        "file:///etc/passwd",
        "https://",
        "http:x",
    ]
    odd = ["https://a.example/\r\nX: y", "https://a.example/ü", " https://a.example/", ""]
    found = parse_document(manifest(layers=[DESCRIPTOR | {"urls": urls + odd}]))
    assert isinstance(found, Manifest)
    assert found.layers[0].urls == tuple(urls[:2])
    for many in (["https://a.example/"] * 65, ["https://a.example/" + "x" * 4096]):
        with pytest.raises(LimitError, match="URL"):
            parse_document(manifest(layers=[DESCRIPTOR | {"urls": many}]))


def test_an_index_lists_instances_by_platform() -> None:
    found = parse_document(INDEX.manifest)
    assert isinstance(found, Index)
    assert [one.platform for one in found.instances] == [
        Platform("linux", "amd64"),
        Platform("linux", "arm64"),
    ]
    assert [one.descriptor.digest for one in found.instances] == [
        one.digest for one in INDEX.instances
    ]


@pytest.mark.parametrize("golden", all_golden(), ids=str)
def test_the_documents_of_real_tools_are_read(golden: Golden) -> None:
    listed = json.loads((golden.layout / "index.json").read_bytes())["manifests"]
    for entry in listed:
        found = parse_document(golden.blob(entry["digest"]))
        assert isinstance(found, Index) == (entry["mediaType"] in (OCI_INDEX, DOCKER_LIST))
        if isinstance(found, Manifest):
            config = parse_config(golden.blob(found.config.digest), len(found.layers))
            assert len(config.diff_ids) == len(found.layers)


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
@pytest.mark.parametrize(
    "said", ["", "application/json", "text/plain", OCI_MANIFEST + "; charset=utf-8", OCI_INDEX]
)
def test_what_the_text_says_of_itself_counts_more_than_what_the_server_calls_it(
    media_type: str, said: str
) -> None:
    found = parse_document(manifest(mediaType=media_type), said)
    assert isinstance(found, Manifest)
    assert found.media_type == media_type


def test_where_the_text_is_silent_the_server_is_heard() -> None:
    silent = manifest(mediaType=...)
    docker = parse_document(silent, f" {DOCKER_MANIFEST.upper()} ; charset=utf-8")
    assert isinstance(docker, Manifest)
    assert docker.media_type == DOCKER_MANIFEST
    with pytest.raises(FormatError, match="calls itself"):
        parse_document(silent, OCI_INDEX)


@pytest.mark.parametrize("unknown", ["annotations", "subject", "artifactType", "x"])
@pytest.mark.parametrize("value", [None, 1, "x", [], {"a": [1]}])
def test_what_we_do_not_use_is_not_looked_at(unknown: str, value: object) -> None:
    assert isinstance(parse_document(manifest(**{unknown: value})), Manifest)


BAD = {
    "reads as both": manifest(manifests=[]),
    "reads as neither": manifest(config=..., layers=...),
    "no config": manifest(config=...),
    "no version": manifest(schemaVersion=...),
    "version 3": manifest(schemaVersion=3),
    "version in words": manifest(schemaVersion="2"),
    "schema 1": b'{"schemaVersion":1,"fsLayers":[]}',
    "schema 1 by type": manifest(
        mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"
    ),
    "an index that calls itself a manifest": dumps(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}
    ),
    "a manifest that calls itself an index": manifest(mediaType=OCI_INDEX),
    "an artifact": manifest(config=DESCRIPTOR | {"mediaType": "application/vnd.oci.empty.v1+json"}),
    "negative size": manifest(layers=[DESCRIPTOR | {"size": -1}]),
    "size of 2^63": manifest(layers=[DESCRIPTOR | {"size": 2**63}]),
    "fractional size": manifest(layers=[DESCRIPTOR | {"size": 1.5}]),
    "size as text": manifest(layers=[DESCRIPTOR | {"size": "5"}]),
    "a path as digest": manifest(layers=[DESCRIPTOR | {"digest": "../../etc/passwd"}]),
    "another algorithm": manifest(layers=[DESCRIPTOR | {"digest": "sha512:" + "0" * 128}]),
    "annotation that is no text": manifest(layers=[DESCRIPTOR | {"annotations": {"a": 1}}]),
    "a list": b"[]",
    "nothing": b"",
    "not JSON": b"<html>",
    "two documents": manifest() + manifest(),
    "not UTF-8": manifest().replace(b"vnd", b"\xff\xfe"),
    "a nesting bomb": b'{"schemaVersion":2,"config":' + b"[" * 100_000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=list(BAD))
def test_a_document_that_cannot_be_meant_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_document(data)


def test_numbers_above_our_limits_are_refused() -> None:
    with pytest.raises(LimitError):
        parse_document(manifest(), limits=Limits(manifest_bytes=50))
    with pytest.raises(LimitError):
        parse_document(manifest(layers=[DESCRIPTOR] * 5), limits=Limits(layers_count=4))
    with pytest.raises(LimitError):
        parse_document(INDEX.manifest, limits=Limits(instances_count=1))
    with pytest.raises(LimitError):
        parse_config(IMAGE.config, 2, limits=Limits(manifest_bytes=50))


@given(st.one_of(
    st.binary(), mutants(IMAGE.manifest), mutants(INDEX.manifest),
    json_mutants(json.loads(IMAGE.manifest)).map(dumps),
    json_mutants(json.loads(INDEX.manifest)).map(dumps),
), st.text(max_size=5) | st.sampled_from([OCI_MANIFEST, OCI_INDEX]))  # fmt: skip
def test_whatever_the_bytes_a_document_or_a_format_error(data: bytes, said: str) -> None:
    try:
        found = parse_document(data, said)
    except FormatError:
        return
    blobs = (
        [found.config, *found.layers]
        if isinstance(found, Manifest)
        else [one.descriptor for one in found.instances]
    )
    assert all(0 <= blob.size < 2**63 and len(blob.digest) == 71 for blob in blobs)


# ── configs ──


def test_a_config_gives_platform_and_diff_ids() -> None:
    config = parse_config(IMAGE.config, 2)
    assert config == Config(Platform("linux", "amd64"), tuple(map(Digest, IMAGE.diff_ids)))


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_each_layer_needs_its_diff_id(layers: int) -> None:
    with pytest.raises(FormatError, match="2 diff IDs"):
        parse_config(IMAGE.config, layers)


def test_a_config_without_diff_ids_proves_nothing() -> None:
    for config in (b"{}", b'{"rootfs":null}', b'{"rootfs":{"diff_ids":null}}'):
        assert parse_config(config, 0).diff_ids == ()
        with pytest.raises(FormatError):
            parse_config(config, 1)


@given(st.binary() | mutants(IMAGE.config) | json_mutants(json.loads(IMAGE.config)).map(dumps))
def test_whatever_the_bytes_a_config_or_a_format_error(data: bytes) -> None:
    try:
        config = parse_config(data, 2)
    except FormatError:
        return
    assert len(config.diff_ids) == 2


# ── platforms ──

NAMES = (
    st.sampled_from(
        ["", "amd64", "x86_64", "ARM64", "aarch64", "arm", "armhf", "386", "riscv64", "s390x"]
    )
    | st.text()
)
VARIANTS = st.sampled_from(
    ["", "v1", "v2", "v3", "v5", "v6", "v7", "v8", "V8", "7", "8"]
) | st.text(max_size=4)


@given(st.sampled_from(["linux", "Linux", "windows"]), NAMES, VARIANTS)
def test_spelling_a_platform_again_changes_nothing(
    os: str, architecture: str, variant: str
) -> None:
    platform = normalised(os, architecture, variant)
    assert normalised(platform.os, platform.architecture, platform.variant) == platform


@given(st.text("linuxamd64v78/ARM", max_size=20) | st.text())
def test_a_platform_reads_as_it_was_written(text: str) -> None:
    platform = parse_platform(text)
    # what a terminal could act on is shown as escapes
    if platform is not None and text.isprintable():
        assert parse_platform(str(platform)) == platform


@pytest.mark.parametrize(("text", "want"), [
    ("linux/amd64", "linux/amd64"), ("linux/x86_64", "linux/amd64"),
    ("Linux/AMD64/v1", "linux/amd64"), ("linux/amd64/v3", "linux/amd64/v3"),
    ("linux/aarch64", "linux/arm64"), ("linux/arm64/v8", "linux/arm64"),
    ("linux/arm", "linux/arm/v7"), ("linux/armhf/6", "linux/arm/v6"), ("linux/i386", "linux/386"),
])  # fmt: skip
def test_one_platform_has_many_spellings(text: str, want: str) -> None:
    assert str(parse_platform(text)) == want


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux//v7"])
def test_what_is_no_platform(text: str) -> None:
    assert parse_platform(text) is None


def test_this_machine_has_a_platform_that_can_be_typed() -> None:
    assert parse_platform(str(this_platform())) == this_platform()


# ── the choice ──


def listing(*platforms: str | None, zstd: tuple[int, ...] = ()) -> Index:
    """An index whose n-th instance has the size n."""
    return Index(
        tuple(
            Instance(
                Descriptor(
                    OCI_MANIFEST, Digest(DIGEST), number, ZSTD_INSTANCE if number in zstd else {}
                ),
                parse_platform(text) if text else None,
            )
            for number, text in enumerate(platforms)
        )
    )


@pytest.mark.parametrize(("platforms", "zstd", "want", "chosen"), [
    (["linux/arm64", "linux/amd64"], (), "linux/amd64", 1),
    (["linux/amd64", "linux/amd64"], (), "linux/amd64", 0),
    (["linux/amd64", "linux/amd64"], (1,), "linux/amd64", 1),
    (["linux/amd64", "linux/amd64", "linux/amd64"], (1, 2), "linux/amd64", 1),
    (["linux/arm/v6", "linux/arm/v7"], (0,), "linux/arm/v7", 1),
    (["linux/arm/v5", "linux/arm/v6"], (), "linux/arm/v7", 1),
    (["linux/amd64", "linux/amd64/v2", "linux/amd64/v3"], (), "linux/amd64/v4", 2),
    (["linux/amd64", "linux/amd64/v4"], (), "linux/amd64/v3", 0),
    (["linux/amd64", "linux/amd64/v2"], (), "linux/amd64", 0),
    (["linux/aarch64"], (), "linux/arm64/v8", 0),
    ([None], (), "linux/amd64", 0),
])  # fmt: skip
def test_best_platform_first_then_zstd_then_position(
    platforms: list[str | None], zstd: tuple[int, ...], want: str, chosen: int
) -> None:
    wanted = parse_platform(want)
    assert wanted is not None
    assert candidates(listing(*platforms, zstd=zstd), wanted)[0].descriptor.size == chosen


@pytest.mark.parametrize(
    "platforms", [[], ["linux/arm64"], [None, "linux/arm64"], ["windows/amd64"], ["linux/amd64/v2"]]
)
def test_an_image_that_cannot_run_here_is_not_chosen(platforms: list[str | None]) -> None:
    with pytest.raises(NotFoundError, match="no image for linux/amd64; it offers"):
        candidates(listing(*platforms), Platform("linux", "amd64"))


NULLS: dict[str, Callable[[Json], None]] = {
    "media type": lambda one: one.update(mediaType=None),
    "media type of a layer": lambda one: one["layers"][0].update(mediaType=None),
    "media type of the config": lambda one: one["config"].update(mediaType=None),
    "annotations": lambda one: one["layers"][0].update(annotations=None),
    "an annotation": lambda one: one["layers"][0].update(annotations={"a": None}),
    "URLs": lambda one: one["layers"][0].update(urls=None),
    "a URL": lambda one: one["layers"][0].update(urls=[None]),
    "platform": lambda one: one["config"].update(platform=None),
    "manifests": lambda one: one.update(manifests=None),
}


@pytest.mark.parametrize("change", NULLS.values(), ids=list(NULLS))
def test_null_is_how_many_writers_say_absent(change: Callable[[Json], None]) -> None:
    one: Json = json.loads(dumps(PLAIN | {"layers": [DESCRIPTOR]}))
    change(one)
    found = parse_document(dumps(one))
    assert isinstance(found, Manifest)
    assert [layer.digest for layer in found.layers] == [DIGEST]
    assert dict(found.layers[0].annotations) == {}


@pytest.mark.parametrize("layers", [..., None, []])
def test_an_image_may_have_no_layers(layers: object) -> None:
    found = parse_document(manifest(layers=layers))
    assert isinstance(found, Manifest)
    assert found.layers == ()


@pytest.mark.parametrize("manifests", [..., None, []])
@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index_may_be_of_nothing(manifests: object, media_type: str) -> None:
    text = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    found = parse_document(dumps({key: value for key, value in text.items() if value is not ...}))
    assert found == Index(())


@pytest.mark.parametrize("key", ["os", "architecture", "variant"])
def test_a_platform_may_be_null_too(key: str) -> None:
    config = json.loads(IMAGE.config) | {key: None}
    assert len(parse_config(dumps(config), 2).diff_ids) == 2
    entry = DESCRIPTOR | {"platform": {"os": "linux", "architecture": "amd64"} | {key: None}}
    found = parse_document(
        dumps({"schemaVersion": 2, "manifests": [entry, entry | {"platform": {key: None}}]})
    )
    assert isinstance(found, Index)
    assert found.instances[1].platform is None


@pytest.mark.parametrize("media_type", [
    "application/octet-stream", "text/html", "text/html; charset=utf-8", "", None, "text/plain",
    "application/json", "Application/VND.docker.container.image.v1+JSON",
    f"{OCI_CONFIG}; charset=utf-8",
])  # fmt: skip
def test_a_config_of_a_type_that_says_nothing_is_judged_by_what_is_in_it(
    media_type: str | None,
) -> None:
    assert isinstance(
        parse_document(manifest(config=DESCRIPTOR | {"mediaType": media_type})), Manifest
    )


@pytest.mark.parametrize("media_type", [
    "application/vnd.cncf.helm.config.v1+json", "application/vnd.wasm.config.v0+json",
    "application/vnd.oci.empty.v1+json", "application/vnd.unknown.config.v1+json",
    "application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.docker.plugin.v1+json",
])  # fmt: skip
def test_artifacts_are_refused(media_type: str) -> None:
    with pytest.raises(ArtifactError, match="this is an artifact, not a container image"):
        parse_document(manifest(config=DESCRIPTOR | {"mediaType": media_type}))


@pytest.mark.parametrize(("said", "is_image"), [
    ({}, True), ({"artifactType": None}, True), ({"artifactType": OCI_CONFIG}, True),
    ({"mediaType": None}, True),
    ({"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"}, False),
    ({"mediaType": "a/zip"}, False),
    ({"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}, False),
    ({"platform": {"os": "unknown", "architecture": "unknown"}}, False),
])  # fmt: skip
def test_what_an_index_says_of_an_entry_tells_images_from_artifacts(
    said: Json, is_image: bool
) -> None:
    entry = DESCRIPTOR | {"mediaType": OCI_MANIFEST} | said
    found = parse_document(dumps({"schemaVersion": 2, "manifests": [entry]}))
    assert isinstance(found, Index)
    assert found.instances[0].is_image == is_image


def test_indexes_that_say_no_platform_come_after_images_that_do() -> None:
    silent = Instance(Descriptor(OCI_INDEX, Digest(DIGEST), 7), None)
    index = Index((silent, *listing("linux/arm64", "linux/amd64").instances))
    found = candidates(index, Platform("linux", "amd64"))
    assert [one.descriptor.size for one in found] == [1, 7]


def test_attestations_are_not_offered() -> None:
    attestation = Instance(Descriptor(OCI_MANIFEST, Digest(DIGEST), 0), None, is_image=False)
    found = Index((attestation, *listing("linux/arm64").instances))
    with pytest.raises(NotFoundError, match=r"it offers linux/arm64$"):
        candidates(found, Platform("linux", "amd64"))
