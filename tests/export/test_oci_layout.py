"""OCI layouts: complete, readable by others, and polite to what is in them already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.build.front import DOCKER_MANIFEST, chunked_layer, gzip_layer, image, make_tar, read_layout
from tests.helpers.build.front import write_layout as by_another_tool
from tests.helpers.build.stored import keep_image
from zchunked.errors import IntegrityError, LocalError
from zchunked.export.atomic import partial_folder, partial_name
from zchunked.export.oci_layout import write_layout
from zchunked.oci.digest import digest_of
from zchunked.oci.documents import Manifest, parse_document
from zchunked.store import Store

BASE = gzip_layer(make_tar({"base": b"base"}))
V1 = image([BASE, chunked_layer(make_tar({"app": b"one" * 1000}))])
V2 = image([BASE, chunked_layer(make_tar({"app": b"two" * 1000}))])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "layout"


def tags(folder: Path) -> dict[str | None, str]:
    entries = json.loads((folder / "index.json").read_bytes())["manifests"]
    return {entry.get("annotations", {}).get("org.opencontainers.image.ref.name"): entry["digest"] for entry in entries}


def test_a_whole_image_comes_out_as_the_registry_has_it(store: Store, folder: Path) -> None:
    digest = write_layout(store, keep_image(store, V1), folder, "v1")
    found = read_layout(folder)
    assert found.tags == {"v1": digest} == {"v1": V1.digest}
    assert found.blobs == V1.blobs
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert {path.name for path in folder.parent.iterdir()} == {"layout"}


def test_an_image_in_parts_comes_out_with_plain_tars_and_the_same_id(store: Store, folder: Path) -> None:
    digest = write_layout(store, keep_image(store, V1, in_parts=[1]), folder, "v1")
    found = read_layout(folder)
    assert found.tags["v1"] == digest != V1.digest
    manifest = parse_document(found.manifests[digest][1])
    assert isinstance(manifest, Manifest)
    assert manifest.config.digest == V1.config_digest
    assert found.blobs == {V1.config_digest: V1.config, BASE.digest: BASE.blob, V1.layers[1].diff_id: V1.layers[1].tar}


def test_a_docker_image_keeps_its_manifest(store: Store, folder: Path) -> None:
    source = image([BASE], media_type=DOCKER_MANIFEST)
    assert write_layout(store, keep_image(store, source), folder, None) == source.digest
    assert read_layout(folder).manifests[source.digest] == (DOCKER_MANIFEST, source.manifest)


def test_images_share_a_layout(store: Store, folder: Path) -> None:
    write_layout(store, keep_image(store, V1), folder, "v1")
    blob = folder / "blobs" / "sha256" / BASE.digest[7:]
    before = blob.stat()
    write_layout(store, keep_image(store, V2), folder, "v2")
    assert tags(folder) == {"v1": V1.digest, "v2": V2.digest}
    assert read_layout(folder).blobs == V1.blobs | V2.blobs
    assert blob.stat().st_mtime_ns == before.st_mtime_ns, "what is there is not written again"
    assert blob.stat().st_ino == before.st_ino


def test_a_tag_moves_to_the_image_written_last(store: Store, folder: Path) -> None:
    for _ in range(2):
        write_layout(store, keep_image(store, V1), folder, "latest")
    write_layout(store, keep_image(store, V2), folder, "latest")
    assert tags(folder) == {"latest": V2.digest}


def test_an_image_without_a_tag_is_listed_once(store: Store, folder: Path) -> None:
    for _ in range(2):
        write_layout(store, keep_image(store, V1), folder, None)
    write_layout(store, keep_image(store, V1), folder, "v1")
    assert len(json.loads((folder / "index.json").read_bytes())["manifests"]) == 2
    assert tags(folder) == {None: V1.digest, "v1": V1.digest}


def test_what_another_tool_wrote_stays(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    by_another_tool(folder, {"theirs": V2})
    write_layout(store, keep_image(store, V1), folder, "ours")
    assert read_layout(folder).tags == {"theirs": V2.digest, "ours": V1.digest}


def test_an_empty_folder_is_a_fine_place(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    write_layout(store, keep_image(store, V1), folder, "v1")
    assert tags(folder) == {"v1": V1.digest}


def test_the_current_folder_is_a_fine_place(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    write_layout(store, keep_image(store, V1), Path(), "v1")
    assert tags(folder) == {"v1": V1.digest}
    assert Path("index.json").exists(), "the shell that stands there sees it"


def test_a_mount_point_is_a_fine_place(store: Store, folder: Path) -> None:
    """Like a current folder it can be filled but neither removed nor renamed."""
    folder.mkdir(parents=True)
    before = folder.stat().st_ino
    folder.parent.chmod(0o500)
    write_layout(store, keep_image(store, V1), folder, "v1")
    assert (tags(folder), folder.stat().st_ino) == ({"v1": V1.digest}, before)


@pytest.mark.parametrize("there", ["a file", "files", "a file in the way"])
def test_what_is_no_layout_is_left_alone(store: Store, folder: Path, there: str) -> None:
    folder.parent.mkdir()
    if there == "a file":
        folder.write_bytes(b"precious")
    elif there == "files":
        folder.mkdir()
        (folder / "thesis.tex").write_bytes(b"precious")
    else:
        folder.parent.rmdir()
        folder.parent.write_bytes(b"precious")
    with pytest.raises(LocalError):
        write_layout(store, keep_image(store, V1), folder, "v1")
    assert b"precious" in {
        path.read_bytes() for path in folder.parents[1].rglob("*") if path.is_file() and path.stat().st_size < 99
    }


@pytest.mark.parametrize(
    "index", [b"", b"{", b"[]", b"{}", b'{"manifests":5}', b'{"manifests":[5]}', b'{"manifests":{"a":1}}', b"\xff"]
)
def test_a_broken_index_is_not_overwritten(store: Store, folder: Path, index: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "index.json").write_bytes(index)
    with pytest.raises(LocalError, match=r"index\.json is malformed"):
        write_layout(store, keep_image(store, V1), folder, "v1")
    assert (folder / "index.json").read_bytes() == index


def damage(store: Store, blob: bytes) -> None:
    for file in (store.folder / "blobs").glob("*-*"):
        data = file.read_bytes()
        if blob in data:
            file.write_bytes(data.replace(blob, bytes(len(blob))))


def test_damage_in_the_store_leaves_no_layout(store: Store, folder: Path) -> None:
    stored = keep_image(store, V1)
    damage(store, V1.layers[1].blob[:50])
    with pytest.raises(IntegrityError):
        write_layout(store, stored, folder, "v1")
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == []


def test_damage_in_the_store_leaves_a_layout_as_it_was(store: Store, folder: Path) -> None:
    write_layout(store, keep_image(store, V1), folder, "v1")
    stored = keep_image(store, V2)
    damage(store, V2.layers[1].blob[:50])
    with pytest.raises(IntegrityError):
        write_layout(store, stored, folder, "v1")
    assert read_layout(folder).tags == {"v1": V1.digest}


def test_a_blob_that_a_crash_left_short_is_written_again(store: Store, folder: Path) -> None:
    write_layout(store, keep_image(store, V1), folder, "v1")
    blob = folder / "blobs" / "sha256" / BASE.digest[7:]
    blob.write_bytes(b"short")
    write_layout(store, keep_image(store, V1), folder, "v1")
    assert digest_of(blob.read_bytes()) == BASE.digest


def test_half_a_blob_that_a_crash_left_does_not_come_along(store: Store, folder: Path) -> None:
    blobs = partial_folder(folder) / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    partial_name(blobs / ("0" * 64)).write_bytes(b"half")
    write_layout(store, keep_image(store, V1), folder, "v1")
    assert read_layout(folder).blobs == V1.blobs
    assert not list(folder.rglob(".*"))
