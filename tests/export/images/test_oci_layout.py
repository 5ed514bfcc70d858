"""OCI layouts: complete, readable by others, and polite to what is in them already."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.helpers.build.front import (
    DOCKER_MANIFEST,
    chunked_layer,
    gzip_layer,
    image,
    make_tar,
    read_layout,
)
from tests.helpers.build.front import write_layout as by_another_tool
from tests.helpers.build.stored import keep_image
from tests.helpers.harness.command import ARGV, environment
from zchunked.errors import IntegrityError, LocalError
from zchunked.export.check import check_target
from zchunked.export.destination import parse_destination
from zchunked.export.files.atomic import partial_name
from zchunked.export.files.folder import FolderTarget
from zchunked.export.files.stage import Stage
from zchunked.export.images.names import Names
from zchunked.export.images.oci_layout import write_layout
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
    return {
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name"): entry["digest"]
        for entry in entries
    }


def test_a_whole_image_comes_out_as_the_registry_has_it(store: Store, folder: Path) -> None:
    digest = write_layout(store, keep_image(store, V1), folder, Names("v1"))
    found = read_layout(folder)
    assert found.tags == {"v1": digest} == {"v1": V1.digest}
    assert found.blobs == V1.blobs
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert {path.name for path in folder.parent.iterdir()} == {"layout"}


def test_an_image_in_parts_comes_out_with_plain_tars_and_the_same_id(
    store: Store, folder: Path
) -> None:
    digest = write_layout(store, keep_image(store, V1, in_parts=[1]), folder, Names("v1"))
    found = read_layout(folder)
    assert found.tags["v1"] == digest != V1.digest
    manifest = parse_document(found.manifests[digest][1])
    assert isinstance(manifest, Manifest)
    assert manifest.config.digest == V1.config_digest
    assert found.blobs == {
        V1.config_digest: V1.config,
        BASE.digest: BASE.blob,
        V1.layers[1].diff_id: V1.layers[1].tar,
    }


def test_a_docker_image_keeps_its_manifest(store: Store, folder: Path) -> None:
    source = image([BASE], media_type=DOCKER_MANIFEST)
    assert write_layout(store, keep_image(store, source), folder, Names(None)) == source.digest
    assert read_layout(folder).manifests[source.digest] == (DOCKER_MANIFEST, source.manifest)


def test_images_share_a_layout(store: Store, folder: Path) -> None:
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    blob = folder / "blobs" / "sha256" / BASE.digest[7:]
    before = blob.stat()
    write_layout(store, keep_image(store, V2), folder, Names("v2"))
    assert tags(folder) == {"v1": V1.digest, "v2": V2.digest}
    assert read_layout(folder).blobs == V1.blobs | V2.blobs
    assert blob.stat().st_mtime_ns == before.st_mtime_ns, "what is there is not written again"
    assert blob.stat().st_ino == before.st_ino


def test_a_tag_moves_to_the_image_written_last(store: Store, folder: Path) -> None:
    for _ in range(2):
        write_layout(store, keep_image(store, V1), folder, Names("latest"))
    write_layout(store, keep_image(store, V2), folder, Names("latest"))
    assert tags(folder) == {"latest": V2.digest}


def test_an_image_without_a_tag_is_listed_once(store: Store, folder: Path) -> None:
    for _ in range(2):
        write_layout(store, keep_image(store, V1), folder, Names(None))
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    assert len(json.loads((folder / "index.json").read_bytes())["manifests"]) == 2
    assert tags(folder) == {None: V1.digest, "v1": V1.digest}


def test_what_another_tool_wrote_stays(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    by_another_tool(folder, {"theirs": V2})
    write_layout(store, keep_image(store, V1), folder, Names("ours"))
    assert read_layout(folder).tags == {"theirs": V2.digest, "ours": V1.digest}


def test_an_empty_folder_is_a_fine_place(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    assert tags(folder) == {"v1": V1.digest}


def test_the_current_folder_is_a_fine_place(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    write_layout(store, keep_image(store, V1), Path(), Names("v1"))
    assert tags(folder) == {"v1": V1.digest}
    assert Path("index.json").exists(), "the shell that stands there sees it"


def test_a_mount_point_is_a_fine_place(store: Store, folder: Path) -> None:
    """Like a current folder it can be filled but neither removed nor renamed."""
    folder.mkdir(parents=True)
    before = folder.stat().st_ino
    folder.parent.chmod(0o500)
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
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
        write_layout(store, keep_image(store, V1), folder, Names("v1"))
    assert b"precious" in {
        path.read_bytes()
        for path in folder.parents[1].rglob("*")
        if path.is_file() and path.stat().st_size < 99
    }


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"manifests":5}',
        b'{"manifests":[5]}',
        b'{"manifests":{"a":1}}',
        b"\xff",
    ],
)
def test_a_broken_index_is_not_overwritten(store: Store, folder: Path, index: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "index.json").write_bytes(index)
    with pytest.raises(LocalError, match=r"index\.json is malformed"):
        write_layout(store, keep_image(store, V1), folder, Names("v1"))
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
        write_layout(store, stored, folder, Names("v1"))
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == []


def test_damage_in_the_store_leaves_a_layout_as_it_was(store: Store, folder: Path) -> None:
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    stored = keep_image(store, V2)
    damage(store, V2.layers[1].blob[:50])
    with pytest.raises(IntegrityError):
        write_layout(store, stored, folder, Names("v1"))
    assert read_layout(folder).tags == {"v1": V1.digest}


def test_a_blob_that_a_crash_left_short_is_written_again(store: Store, folder: Path) -> None:
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    blob = folder / "blobs" / "sha256" / BASE.digest[7:]
    blob.write_bytes(b"short")
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    assert digest_of(blob.read_bytes()) == BASE.digest


def test_what_a_killed_export_left_is_used_again_once_it_is_proved(
    store: Store, folder: Path
) -> None:
    left = Stage(folder)
    blobs = left.blobs
    blobs.mkdir(parents=True)
    right, wrong = V1.layers
    (blobs / right.digest[7:]).write_bytes(right.blob)
    (blobs / wrong.digest[7:]).write_bytes(bytes(wrong.size))
    (blobs / ("0" * 64)).write_bytes(b"of another image")
    partial_name(blobs / ("0" * 64)).write_bytes(b"half")
    before = (blobs / right.digest[7:]).stat().st_ino
    left.close()
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    assert read_layout(folder).blobs == V1.blobs
    assert {path.name for path in (folder / "blobs" / "sha256").iterdir()} == {
        digest[7:] for digest in (*V1.blobs, V1.digest)
    }
    assert (folder / "blobs" / "sha256" / right.digest[7:]).stat().st_ino == before
    assert [path.name for path in folder.parent.iterdir()] == ["layout"]


def test_what_a_living_export_fills_is_left_to_it(store: Store, folder: Path) -> None:
    other = Stage(folder)
    (other.folder / "mine").write_bytes(b"x")
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    assert (other.folder / "mine").read_bytes() == b"x"
    other.drop()
    assert [path.name for path in folder.parent.iterdir()] == ["layout"]


@pytest.mark.parametrize("is_there", [False, True])
def test_a_layout_that_another_export_made_meanwhile_keeps_what_it_lists(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """Both begin when nothing is there."""
    if is_there:
        folder.mkdir(parents=True)
    first, second = (
        keep_image(store, one, name=f"example.com/app:{tag}")
        for one, tag in ((V1, "v1"), (V2, "v2"))
    )
    really = FolderTarget.held

    def late(self: FolderTarget, report: Callable[[str], None]) -> AbstractContextManager[None]:
        monkeypatch.setattr(FolderTarget, "held", really)
        write_layout(store, second, folder, Names("v2"))
        return really(self, report)

    monkeypatch.setattr(FolderTarget, "held", late)
    write_layout(store, first, folder, Names("v1"))
    assert tags(folder) == {"v1": V1.digest, "v2": V2.digest}
    assert read_layout(folder).blobs == V1.blobs | V2.blobs
    assert not list(folder.rglob(".*"))
    assert [path.name for path in folder.parent.iterdir()] == ["layout"]


def test_a_layout_that_appears_between_two_looks_is_not_in_the_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def appears(path: Path) -> bool:
        path.mkdir(parents=True)
        path.joinpath("oci-layout").write_text("{}")
        return False

    monkeypatch.setattr("zchunked.export.files.folder.is_free", appears)
    check_target(parse_destination(f"oci:{folder}"))


def test_a_folder_is_marked_as_a_layout_before_anything_else_is_moved_into_it(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at it meanwhile would take it for somebody else's."""
    folder.mkdir(parents=True)
    really, moved = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        if "blobs" in Path(target).parts:
            moved.append(folder.joinpath("oci-layout").exists())
        return really(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    write_layout(store, keep_image(store, V1, name="example.com/app:v1"), folder, Names("v1"))
    assert moved
    assert all(moved)


@pytest.mark.parametrize("is_there", [False, True])
def test_many_processes_write_to_one_layout_and_all_are_listed(
    tmp_path: Path, folder: Path, is_there: bool
) -> None:
    images = [image([BASE, gzip_layer(make_tar({"n": bytes([number])}))]) for number in range(4)]
    with Store(tmp_path / "store") as store:
        for number, one in enumerate(images):
            keep_image(store, one, name=f"example.com/app:v{number}")
        if is_there:
            write_layout(
                store, keep_image(store, V1, name="example.com/other:t"), folder, Names("first")
            )
    ended = [
        subprocess.Popen([*ARGV, "export", f"example.com/app:v{number}", "--to", f"oci:{folder}"],
                         env=environment(tmp_path), stdout=subprocess.DEVNULL)
        for number in range(4)
    ]  # fmt: skip
    assert [process.wait(60) for process in ended] == [0] * 4
    want: dict[str | None, str] = {f"v{number}": one.digest for number, one in enumerate(images)}
    assert tags(folder) == want | ({"first": V1.digest} if is_there else {})
    assert not list(folder.rglob(".*"))


def test_an_export_waits_for_the_one_before_and_says_so(store: Store, folder: Path) -> None:
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    told: list[str] = []
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)

    def report(text: str) -> None:
        told.append(text)
        os.close(handle)

    write_layout(store, keep_image(store, V2), folder, Names("v2"), report=report)
    assert told == [f"waiting for another writer to {folder}"]
    assert tags(folder) == {"v1": V1.digest, "v2": V2.digest}


def test_a_blob_of_the_right_size_and_the_wrong_content_is_written_again(
    store: Store, folder: Path
) -> None:
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    for digest in V1.blobs:
        path = folder / "blobs" / "sha256" / digest[7:]
        path.write_bytes(bytes(path.stat().st_size))
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    assert read_layout(folder).blobs == V1.blobs


def test_a_planted_link_is_replaced_and_never_followed(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(BASE.blob)
    write_layout(store, keep_image(store, V1), folder, Names("v1"))
    path = folder / "blobs" / "sha256" / BASE.digest[7:]
    path.unlink()
    path.symlink_to(victim)
    write_layout(store, keep_image(store, V2), folder, Names("v2"))
    assert not path.is_symlink()
    assert read_layout(folder).blobs == V1.blobs | V2.blobs
    (folder / "blobs").rename(tmp_path / "elsewhere")
    (folder / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalError, match="symbolic link, which is not followed"):
        write_layout(store, keep_image(store, V2), folder, Names("v3"))


def test_force_fills_a_folder_that_holds_other_things(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_bytes(b"precious")
    stored = keep_image(store, V1)
    with pytest.raises(LocalError, match="use --force"):
        write_layout(store, stored, folder, Names("v1"))
    write_layout(store, stored, folder, Names("v1"), force=True)
    assert tags(folder) == {"v1": V1.digest}
    assert (folder / "thesis.tex").read_bytes() == b"precious"


def test_force_replaces_a_file(store: Store, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_bytes(b"x")
    write_layout(store, keep_image(store, V1), folder, Names("v1"), force=True)
    assert tags(folder) == {"v1": V1.digest}


def test_names_are_in_both_annotations(store: Store, folder: Path) -> None:
    write_layout(store, keep_image(store, V1), folder, Names("v1", "example.com/app:v1"))
    (entry,) = json.loads((folder / "index.json").read_bytes())["manifests"]
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": "v1",
        "io.containerd.image.name": "example.com/app:v1",
    }
