"""Archives: one tar stream, as `docker load`, `podman load` and `skopeo` read it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.build.front import (
    chunked_layer,
    gzip_layer,
    image,
    make_tar,
    read_layout,
    sha256,
)
from tests.helpers.build.stored import keep_image
from zchunked.errors import IntegrityError
from zchunked.export.images.archives import write_docker_archive, write_oci_archive
from zchunked.export.images.names import Names
from zchunked.store import Store

BASE = gzip_layer(make_tar({"base": b"base"}))
APP = chunked_layer(make_tar({"app": b"one" * 1000, "more": bytes(5000)}))
IMAGE = image([BASE, APP, BASE])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as found:
        yield found


def members(data: bytes) -> dict[str, bytes]:
    # as a stream: nothing may rely on seeking
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as tar:
        found = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        contents = {}
        for name, _ in found:
            assert name not in contents, f"{name} is there twice"
            contents[name] = b""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for name in contents:
            file = tar.extractfile(name)
            assert file is not None
            contents[name] = file.read()
    return contents


@pytest.mark.parametrize("in_parts", [[], [1]])
def test_an_oci_archive_is_a_layout_in_a_tar(
    store: Store, tmp_path: Path, in_parts: list[int]
) -> None:
    sink = io.BytesIO()
    digest = write_oci_archive(
        store, keep_image(store, IMAGE, in_parts=in_parts), sink, Names("v1", "example.com/app:v1")
    )
    found = members(sink.getvalue())
    (listed,) = json.loads(found["manifest.json"])
    assert listed["RepoTags"] == ["example.com/app:v1"]
    assert sha256(found[listed["Config"]]) == IMAGE.config_digest
    # gzip as it is, zstd as a plain tar: docker 20.10 cannot unpack it
    for_docker = [BASE.blob, APP.tar, BASE.blob]
    assert [found[name] for name in listed["Layers"]] == for_docker
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "example.com/app:v1"
    for name, data in found.items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    layout = read_layout(tmp_path / "layout")
    assert layout.tags == {"v1": digest}
    assert (digest == IMAGE.digest) == (not in_parts)
    layers = {APP.diff_id: APP.tar} if in_parts else {APP.digest: APP.blob}
    assert layout.blobs == {IMAGE.config_digest: IMAGE.config, BASE.digest: BASE.blob} | layers
    assert len(sink.getvalue()) % tarfile.RECORDSIZE == 0


@pytest.mark.parametrize("in_parts", [[], [1]])
@pytest.mark.parametrize("tag", ["example.com/app:v1", None])
def test_a_docker_archive_holds_plain_tars(
    store: Store, in_parts: list[int], tag: str | None
) -> None:
    sink = io.BytesIO()
    write_docker_archive(store, keep_image(store, IMAGE, in_parts=in_parts), sink, Names("v1", tag))
    found = members(sink.getvalue())
    (listed,) = json.loads(found["manifest.json"])
    assert listed["RepoTags"] == ([tag] if tag else None)
    assert (
        sha256(found[listed["Config"]])
        == IMAGE.config_digest
        == "sha256:" + listed["Config"].removesuffix(".json")
    )
    assert [sha256(found[name]) for name in listed["Layers"]] == IMAGE.diff_ids
    assert len(found) == 4, "a layer that is listed twice is there once"
    assert len(sink.getvalue()) % tarfile.RECORDSIZE == 0


def test_damage_in_the_store_ends_the_archive(store: Store) -> None:
    stored = keep_image(store, IMAGE)
    for file in (store.folder / "blobs").glob("*-*"):
        data = file.read_bytes()
        file.write_bytes(data.replace(APP.blob[:60], bytes(60)))
    for write in (write_oci_archive, write_docker_archive):
        sink = io.BytesIO()
        with pytest.raises(IntegrityError):
            write(store, stored, sink, Names("v1"))
        assert not sink.getvalue().endswith(bytes(1024)), "nobody takes it for a complete one"
