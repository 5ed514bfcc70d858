"""Layouts that are filled while they are pulled: from proved bytes, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.helpers.build.front import chunked_layer, gzip_layer, image, make_tar, read_layout
from tests.helpers.build.front import write_layout as by_another_tool
from tests.helpers.build.stored import keep_image
from tests.helpers.harness.command import zpull
from tests.helpers.servers.faults import flip, on
from tests.helpers.servers.registry import Registry
from zchunked.errors import IntegrityError
from zchunked.export.destination import parse_destination
from zchunked.export.images.names import Names
from zchunked.export.images.oci_layout import write_layout
from zchunked.export.images.tee import ExportTee, tee_of
from zchunked.oci.digest import digest_of
from zchunked.store import Store

LAYERS = [
    gzip_layer(make_tar({"base": Random(1).randbytes(9000)})),
    chunked_layer(make_tar({"app": b"x" * 99})),
]
IMAGE = image(LAYERS)
BLOB, DIGEST = LAYERS[0].blob, digest_of(LAYERS[0].blob)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "layout"


@pytest.fixture
def tee(folder: Path) -> Iterator[ExportTee]:
    made = ExportTee(folder)
    yield made
    made.stage.drop()


def copy(tee: ExportTee, blob: bytes = BLOB) -> list[bytes]:
    with tee.copying(DIGEST) as through:
        return list(through(iter([blob[:100], blob[100:]])))


def test_a_copy_becomes_the_blob_of_the_layout(store: Store, folder: Path, tee: ExportTee) -> None:
    assert copy(tee) == [BLOB[:100], BLOB[100:]]
    inode = (tee.stage.blobs / DIGEST[7:]).stat().st_ino
    write_layout(store, keep_image(store, IMAGE), folder, Names("v1"), stage=tee.stage)
    assert read_layout(folder).blobs == IMAGE.blobs
    assert (folder / "blobs" / "sha256" / DIGEST[7:]).stat().st_ino == inode
    assert [path.name for path in folder.parent.iterdir()] == ["layout"]


def test_nothing_is_left_of_blocks_that_were_wrong(tee: ExportTee) -> None:
    def wrong() -> Iterator[bytes]:
        yield BLOB
        raise IntegrityError("wrong")

    with pytest.raises(IntegrityError), tee.copying(DIGEST) as through:
        b"".join(through(wrong()))
    assert [*tee.stage.blobs.iterdir()] == []
    assert tee.stage.written == set()


def test_a_copy_that_cannot_be_made_keeps_nobody_from_the_blocks(
    folder: Path, tee: ExportTee
) -> None:
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_bytes(b"in the way")
    assert b"".join(copy(tee)) == BLOB
    assert tee.stage.written == set()


def test_a_copy_that_breaks_off_is_dropped(tee: ExportTee, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", full)
    assert b"".join(copy(tee)) == BLOB
    assert [*tee.stage.blobs.iterdir()] == []
    assert tee.stage.written == set()


def full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_layout_made_meanwhile_by_another_process_gets_the_blobs_too(
    store: Store, folder: Path, tee: ExportTee
) -> None:
    copy(tee)
    by_another_tool(folder, {"other": image([LAYERS[1]])})
    write_layout(store, keep_image(store, IMAGE), folder, Names("v1"), stage=tee.stage)
    assert IMAGE.blobs.items() <= read_layout(folder).blobs.items()
    assert [path.name for path in folder.parent.iterdir()] == ["layout"]


@pytest.mark.parametrize(
    ("to", "is_new"),
    [("oci:new", True), ("oci:there", False), ("oci-archive:new", False), ("oci:empty", True)],
)
def test_only_new_layouts_are_filled_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, is_new: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    by_another_tool(Path("there"), {"v1": IMAGE})
    Path("empty").mkdir()
    assert (tee_of(parse_destination(to)) is not None) == is_new


def test_a_pull_that_was_sent_damage_fills_the_layout_with_what_is_right(
    tmp_path: Path, folder: Path
) -> None:
    by_another_tool(tmp_path / "served", {"v1": IMAGE})
    with Registry(tmp_path / "served", faults=[on("blob", flip(4000), times=1)]) as registry:
        zpull(tmp_path, registry.reference("v1"), "--to", f"oci:{folder}:v1")
        assert registry.accounts.body_bytes > sum(len(blob) for blob in IMAGE.blobs.values())
    assert read_layout(folder).blobs == IMAGE.blobs
    assert [path.name for path in folder.parent.iterdir()] == ["layout"]


def test_a_pull_that_fails_leaves_nothing_beside_the_target(tmp_path: Path, folder: Path) -> None:
    by_another_tool(tmp_path / "served", {"v1": IMAGE})
    with Registry(tmp_path / "served", faults=[on("blob", flip(4000))]) as registry:
        ended = zpull(tmp_path, registry.reference("v1"), "--to", f"oci:{folder}:v1", check=False)
    assert ended.code == 6
    assert not folder.parent.exists() or [*folder.parent.iterdir()] == []
