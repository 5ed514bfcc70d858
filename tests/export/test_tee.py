"""Tars that are put aside for a layout while they are proved: there when all went well, gone when not."""

from __future__ import annotations

import io
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.build.front import chunked_layer, every, image, make_tar, read_layout
from tests.helpers.harness.command import zpull
from tests.helpers.harness.pulls import open_store
from tests.helpers.harness.pulls import pull as pull_into
from tests.helpers.harness.rough import started
from tests.helpers.servers.memory import MemorySource
from tests.helpers.servers.registry import Registry
from zchunked.errors import IntegrityError, TransferError
from zchunked.export import ExportTee, export, parse_destination
from zchunked.export.layers import LayerContent
from zchunked.oci.digest import Digest, digest_of

TAR = b"tar" * 1000
DIFF_ID = digest_of(TAR)


def text(number: int) -> bytes:
    return bytes(f"{number}:{'words ' * 40}", "ascii") * 20


V1 = image([chunked_layer(make_tar({f"f{n}": text(n) for n in range(40)}), cut=every(2000))])
V2 = image([chunked_layer(make_tar({f"f{n}": text(n) for n in range(20, 60)}), cut=every(2000))])
TWICE = image([V2.layers[0], V2.layers[0]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "layout"


def aside_of(folder: Path) -> ExportTee:
    found = ExportTee.of([parse_destination(f"oci-archive:{folder}.tar"), parse_destination(f"oci:{folder}:t")])
    assert found is not None
    return found


def passed(aside: ExportTee, tar: bytes = TAR, diff_id: Digest = DIFF_ID) -> None:
    with aside.passing(diff_id, len(tar), iter([tar[:1000], tar[1000:]])) as same:
        assert b"".join(same) == tar


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_passed_is_kept_under_its_name(folder: Path) -> None:
    passed(aside_of(folder))
    assert files_in(folder.parent) == {DIFF_ID[7:]: TAR}
    assert not folder.exists()


def test_a_tar_that_is_not_proved_leaves_nothing(folder: Path) -> None:
    aside = aside_of(folder)

    def judge() -> None:
        with aside.passing(DIFF_ID, 1, iter([b"wrong"])) as tar:
            assert list(tar) == [b"wrong"]
            raise IntegrityError("no")

    with pytest.raises(IntegrityError):
        judge()
    assert files_in(folder.parent) == {}
    aside.drop()
    assert list(folder.parent.iterdir()) == []


def test_two_layers_of_one_tar_do_not_write_it_twice(folder: Path) -> None:
    aside = aside_of(folder)
    with aside.passing(DIFF_ID, len(TAR), iter([TAR])) as tar:
        passed(aside)
        assert b"".join(tar) == TAR
    assert files_in(folder.parent) == {DIFF_ID[7:]: TAR}


def test_a_disk_that_fails_costs_the_copy_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, data: object, /) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", lambda handle, *_: Full(handle, "w"))
    passed(aside_of(folder))
    monkeypatch.undo()
    assert files_in(folder.parent) == {}


def test_the_room_that_the_store_may_need_is_not_taken(folder: Path) -> None:
    with aside_of(folder).passing(DIFF_ID, 1 << 60, iter([TAR])) as tar:
        assert b"".join(tar) == TAR
    assert files_in(folder.parent) == {}


def test_a_place_that_cannot_be_written_is_left_to_the_export(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("mine")
    passed(aside_of(tmp_path / "file" / "layout"))
    full = tmp_path / "full"
    full.mkdir()
    full.joinpath("mine").write_text("precious")
    assert ExportTee.of([parse_destination(f"oci:{full}")]) is None
    assert ExportTee.of([parse_destination(f"docker-archive:{tmp_path}/x")]) is None


def test_a_layout_that_exists_gets_nothing_before_its_export(folder: Path, tmp_path: Path) -> None:
    """Others may read and write there meanwhile."""
    to = parse_destination(f"oci:{folder}:v1")
    with open_store(tmp_path) as store:
        stored = pull_into(MemorySource(V1), store).image
        assert stored is not None
        export(store, stored, to)
    assert ExportTee.of([to]) is None


def test_dropping_leaves_nothing(folder: Path) -> None:
    aside = aside_of(folder)
    passed(aside)
    passed(aside, b"more", digest_of(b"more"))
    aside.drop()
    assert list(folder.parent.iterdir()) == []


@pytest.fixture
def unmade(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: LayerContent) -> Iterator[bytes]:
        pytest.fail("the tar was made once more")

    monkeypatch.setattr(LayerContent, "tar", never)


@pytest.mark.usefixtures("unmade")
@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("what", [V2, TWICE], ids=["one layer", "the same twice"])
def test_an_export_takes_what_was_put_aside(folder: Path, tmp_path: Path, what: object, is_there: bool) -> None:
    assert isinstance(what, type(V2))
    if is_there:
        folder.mkdir(parents=True)
    with open_store(tmp_path) as store:
        pull_into(MemorySource(V1), store, "example.com/app:old")
        aside = aside_of(folder)
        stored = pull_into(MemorySource(what), store, aside=aside).image
        assert stored is not None
        export(store, stored, parse_destination(f"oci:{folder}:t"), stage=aside.stage)
    found = read_layout(folder)
    assert found.blobs == {what.config_digest: what.config, what.layers[0].diff_id: what.layers[0].tar}
    assert [path.name for path in folder.parent.iterdir()] == ["layout"]
    assert not list(folder.rglob(".*"))


def test_nothing_stays_of_a_pull_that_failed(folder: Path, tmp_path: Path) -> None:
    """The first layer may have been proved, the second one never comes."""
    lost = chunked_layer(make_tar({f"g{n}": text(n) for n in range(30, 90)}), cut=every(2000))
    source = MemorySource(image([V2.layers[0], lost]))

    def breaks(blob: object, at: int, piece: bytes) -> bytes:
        if getattr(blob, "digest", "") == lost.digest and at < lost.toc_at.offset:  # type: ignore[union-attr]
            raise TransferError("cut off")
        return piece

    source.change = breaks
    aside = aside_of(folder)
    with open_store(tmp_path) as store:
        pull_into(MemorySource(V1), store, "example.com/app:old")
        with pytest.raises(TransferError):
            pull_into(source, store, aside=aside)
    aside.drop()
    assert list(folder.parent.glob("*")) == []


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGKILL])
def test_a_pull_that_is_ended_in_the_middle_leaves_no_target_and_the_next_a_whole_one(
    folder: Path, tmp_path: Path, signal_: signal.Signals
) -> None:
    old, new = (image([chunked_layer(make_tar(noise(start, 300)))]) for start in (0, 150))
    with Registry({"old": old, "new": new}) as registry:
        zpull(tmp_path, registry.reference("old"))
        registry.wire._rate = 200_000
        with started(tmp_path, registry.reference("new"), "--to", f"oci:{folder}:t") as process:
            while not files_in(folder.parent) and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal_)
            process.communicate()
        assert process.returncode == (130 if signal_ == signal.SIGINT else -signal_)
        assert not folder.exists()
        assert signal_ == signal.SIGKILL or not list(folder.parent.glob("*"))
        registry.wire._rate = None
        zpull(tmp_path, registry.reference("new"), "--to", f"oci:{folder}:t")
    assert read_layout(folder).blobs == {new.config_digest: new.config, new.layers[0].diff_id: new.layers[0].tar}
    assert not list(folder.rglob(".*"))
    assert [path.name for path in folder.parent.iterdir()] == ["layout"]


def noise(start: int, count: int) -> dict[str, bytes]:
    return {f"f{number}": random.Random(number).randbytes(6000) for number in range(start, start + count)}
