"""What an export carries.

The registry's own bytes where they are here whole, else the plain tar, proved either way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import (
    DOCKER_MANIFEST,
    chunked_layer,
    every,
    gzip_layer,
    image,
    make_tar,
    sha256,
    zstd_layer,
)
from tests.helpers.build.stored import keep_image
from zchunked.errors import IntegrityError
from zchunked.export.images.layers import layers_of, manifest_of
from zchunked.oci.digest import Digest
from zchunked.oci.documents import OCI_LAYER_TAR, OCI_MANIFEST, Manifest, parse_document
from zchunked.ranges import ByteRange
from zchunked.store import Store

FILES = {
    "etc/": b"",
    "etc/hello": b"hello\n",
    "big": bytes(range(256)) * 40,
    "hole": b"x" * 9 + bytes(3000),
}
BASE = gzip_layer(make_tar({"base": b"base"}))
APP = chunked_layer(make_tar(FILES), cut=every(2500))
IMAGE = image([BASE, APP, zstd_layer(make_tar({}))])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as found:
        yield found


def test_a_whole_image_keeps_the_registrys_manifest(store: Store) -> None:
    stored = keep_image(store, IMAGE)
    layers = layers_of(store, stored)
    assert [layer.is_whole for layer in layers] == [True] * 3
    assert manifest_of(stored, layers) == (IMAGE.manifest, OCI_MANIFEST)
    assert [b"".join(layer.blob()) for layer in layers] == [layer.blob for layer in IMAGE.layers]
    assert [b"".join(layer.tar()) for layer in layers] == [layer.tar for layer in IMAGE.layers]


@pytest.mark.parametrize("generation", [3, 4])
def test_a_layer_that_is_here_in_parts_is_carried_as_its_tar(store: Store, generation: Any) -> None:
    app = chunked_layer(make_tar(FILES), cut=every(2500), generation=generation)
    source = image([BASE, app])
    stored = keep_image(store, source, in_parts=[1])
    layers = layers_of(store, stored)
    assert [layer.is_whole for layer in layers] == [True, False]
    data, media_type = manifest_of(stored, layers)
    found = parse_document(data, media_type)
    assert isinstance(found, Manifest)
    assert found.config.digest == source.config_digest, "the image's ID stays"
    assert [(layer.media_type, layer.digest, layer.size) for layer in found.layers] == [
        (BASE.media_type, BASE.digest, BASE.size),
        (OCI_LAYER_TAR, app.diff_id, len(app.tar)),
    ]
    for layer, descriptor in zip(layers, found.layers, strict=True):
        blob = b"".join(layer.blob())
        assert (sha256(blob), len(blob)) == (descriptor.digest, descriptor.size)
    assert "annotations" not in json.loads(data)["layers"][1], (
        "they speak of bytes that are not there"
    )


def test_docker_types_become_oci_types_in_a_manifest_of_our_own(store: Store) -> None:
    source = image([BASE, zstd_layer(make_tar({"z": b"z"}))], media_type=DOCKER_MANIFEST)
    stored = keep_image(store, source)
    layers = layers_of(store, stored)
    assert manifest_of(stored, layers) == (source.manifest, DOCKER_MANIFEST), (
        "all is here: nothing is rewritten"
    )
    parts = [layers[0], type(layers[1])(store, layers[1].layer, layers[1].diff_id, is_whole=False)]
    listed = json.loads(manifest_of(stored, parts)[0])
    assert listed["mediaType"] == OCI_MANIFEST
    assert listed["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert [layer["mediaType"] for layer in listed["layers"]] == [
        OCI_LAYER_TAR + "+gzip",
        OCI_LAYER_TAR,
    ]


@pytest.mark.parametrize("in_parts", [[], [1]])
def test_bytes_that_were_damaged_since_the_proof_are_not_exported(
    store: Store, in_parts: list[int]
) -> None:
    stored = keep_image(store, IMAGE, in_parts=in_parts)
    chunk = APP.chunks[2]
    for file in (store.folder / "blobs").glob("*-*"):
        data = file.read_bytes()
        at = data.find(APP.blob[chunk.start : chunk.end])
        if at >= 0:
            file.write_bytes(
                data[:at] + bytes(chunk.end - chunk.start) + data[at + chunk.end - chunk.start :]
            )
    layer = layers_of(store, stored)[1]
    with pytest.raises(IntegrityError):
        list(layer.blob())


def test_a_layer_that_lost_its_proof_is_not_exported(store: Store) -> None:
    stored = keep_image(store, IMAGE)
    store.evict(Digest(APP.digest), [ByteRange(5, 6)])
    with pytest.raises(IntegrityError, match="no longer proved in the store; pull the image again"):
        layers_of(store, stored)
