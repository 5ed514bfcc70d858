"""What disks do: full, without power, with bits that flip, files that shrink or go.

Nothing needs a repair step.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.build.front import OLD_PREFIX, Image, chunked_layer, image, make_tar
from tests.helpers.harness.command import zpull
from tests.helpers.harness.rough import (
    assert_right,
    files,
    kill_after,
    large,
    run,
    started,
    verified,
    versions,
    with_v1,
)
from tests.helpers.servers.registry import Registry

SIZE = sum(map(len, large().blobs.values()))

# ── full ──


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """Call with a number of bytes to make the disk under tmp_path/home that large."""
    home = tmp_path / "home"
    home.mkdir()
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "zpull-test", home],
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"needs root to mount a tmpfs: {tried.stderr.decode().strip()}")

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", home], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", home], check=True)


@pytest.mark.parametrize("size", [1_000_000, 1_500_000, 2_300_000, 3_000_000])
def test_a_full_disk_ends_the_pull_and_a_larger_one_continues_it(
    size: int, small_disk: Callable[[int], None], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    small_disk(size)
    with Registry({"big": large()}, rate=20_000_000) as registry:
        ended = run(home, registry, "big", check=8)
        assert "free some space and run the same command again" in ended.error
        assert ended.receipt["bytes"]["fetched"] > 0
        for _ in range(2):  # it does not get worse by trying
            sent = registry.accounts.blob_bytes
            ended = run(home, registry, "big", check=8)
            assert "free some space" in ended.error
            assert registry.accounts.blob_bytes - sent <= 0.25 * SIZE
        small_disk(64 << 20)
        run(home, registry, "big")
        # What was on its way to a disk that took no more could not be kept, and nothing else came
        # twice.
        assert registry.accounts.sent_twice() <= 3 * 0.25 * SIZE
        assert_right(home, registry, "big")


@pytest.mark.parametrize("size", [0, 20_000, 60_000, 150_000, 300_000])
def test_a_disk_without_room_for_an_index(
    size: int, small_disk: Callable[[int], None], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    small_disk(max(size, 4096))
    with Registry({"big": large()}) as registry:
        ended = run(home, registry, "big", check=8)
        assert "free some space" in ended.error
        small_disk(64 << 20)
        run(home, registry, "big")
        assert_right(home, registry, "big")


# ── without power ──


def pull_the_plug(home: Path) -> int:
    """What a kill at this moment and a restart without the page cache leave.

    Returns the bytes that are lost.
    """
    store = home / "store"
    claimed = committed(home)
    lost = 0
    for journal in (store / "blobs").glob("*.map"):
        head, _, body = journal.read_bytes().partition(b"\n")
        journal.write_bytes(
            json.dumps(json.loads(head) | {"boot": "another"}).encode() + b"\n" + body
        )
        data = journal.with_suffix("")
        keep = claimed.get(data.name, 0)
        lost += data.stat().st_size - keep
        os.truncate(data, keep)
    return lost


def committed(home: Path) -> dict[str, int]:
    """Of each byte file, how far the index claims it."""
    import sqlite3  # noqa: PLC0415

    with sqlite3.connect(home / "store" / "index.sqlite") as db:
        rows = db.execute("SELECT file, max(at + length) FROM extents GROUP BY file").fetchall()
    db.close()
    return dict(rows)


def test_a_power_loss_costs_what_came_since_the_last_commit(tmp_path: Path) -> None:
    lost = 0
    rate = 800_000
    with Registry({"big": large()}, rate=rate) as registry:
        for _ in range(2):
            with started(tmp_path, registry.reference("big")) as process:
                time.sleep(0.5)
                assert kill_after(process, registry, 1_200_000)
                process.communicate()
            lost += pull_the_plug(tmp_path)
            assert zpull(tmp_path, "verify").code == 0, "a row without its bytes"
        registry.wire._rate = None
        run(tmp_path, registry, "big")
        assert 0 < lost <= 2 * 1.5 * rate, "a second and a half of arrivals each time"
        assert registry.accounts.sent_twice() <= lost + 100_000
        assert_right(tmp_path, registry, "big")


def test_a_restart_in_good_order_costs_as_little_as_a_power_loss(tmp_path: Path) -> None:
    """The journal of another boot counts for nothing, even where the bytes are still there."""
    with Registry({"big": large()}, rate=1_500_000) as registry:
        with started(tmp_path, registry.reference("big")) as process:
            assert kill_after(process, registry, 2_000_000)
            process.communicate()
        for journal in (tmp_path / "store" / "blobs").glob("*.map"):
            head, _, body = journal.read_bytes().partition(b"\n")
            journal.write_bytes(
                json.dumps(json.loads(head) | {"boot": "another"}).encode() + b"\n" + body
            )
        assert zpull(tmp_path, "verify").code == 0
        registry.wire._rate = None
        run(tmp_path, registry, "big")
        assert_right(tmp_path, registry, "big")
        assert not list((tmp_path / "store" / "blobs").glob("*.map"))


# ── damaged ──


def byte_files(home: Path) -> list[Path]:
    return sorted((home / "store" / "blobs").iterdir(), key=lambda path: path.stat().st_size)


def flip_in(path: Path, share: float) -> None:
    at = int(path.stat().st_size * share)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x40]))


def flip_all(home: Path) -> None:
    for path in byte_files(home):
        flip_in(path, 0.4)


def delete_all(home: Path) -> None:
    for path in byte_files(home):
        path.unlink()


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit flipped": lambda home: flip_in(byte_files(home)[-1], 0.6),
    "bits flipped in every file": flip_all,
    "a file cut off": lambda home: os.truncate(byte_files(home)[-1], 5000),
    "a file emptied": lambda home: os.truncate(byte_files(home)[-2], 0),
    "a file deleted": lambda home: byte_files(home)[-1].unlink(),
    "every file deleted": delete_all,
}


@pytest.mark.parametrize("is_update", [False, True], ids=["whole", "parts"])
@pytest.mark.parametrize("name", DAMAGE)
def test_verify_finds_damage_and_the_next_pull_heals_it(
    name: str, is_update: bool, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = with_v1(tmp_path, tmp_path_factory.mktemp("v1")) if is_update else tmp_path
    with Registry(versions()) as registry:
        run(home, registry, "v2")
        DAMAGE[name](home)
        found = zpull(home, "verify", "--format", "json", check=False)
        assert found.code == 6
        assert "pull the image again to repair it" in found.error
        assert found.receipt["damaged"]
        assert zpull(home, "verify").code == 0, "what was damaged is gone"
        sent = registry.accounts.blob_bytes
        run(home, registry, "v2")
        if name == "a bit flipped":
            assert registry.accounts.blob_bytes - sent <= 0.4 * SIZE
        assert_right(home, registry, "v2")
        assert zpull(home, "verify").code == 0


@pytest.mark.parametrize("name", DAMAGE)
def test_an_export_never_writes_damage(name: str, tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        run(tmp_path, registry, "v2")
        DAMAGE[name](tmp_path)
        reference = registry.reference("v2")
    ended = zpull(tmp_path, "export", reference, "--to", f"oci:{tmp_path}/out", check=False)
    assert ended.code in (3, 6)
    assert not (tmp_path / "out" / "index.json").exists()


def old_image() -> Image:
    """A layer without a tar-split.

    Its tar is rebuilt from header frames, which no digest covers alone.
    """
    return image([chunked_layer(make_tar(files(1, 20, 10_000)), generation=1)])


def test_damage_in_header_frames_is_found_too(tmp_path: Path) -> None:
    made = old_image()
    layer = made.layers[0]
    assert any(key.startswith(OLD_PREFIX) for key in layer.annotations)
    with Registry({"old": made}) as registry:
        run(tmp_path, registry, "old", "--max-gap", "0")
        start, end = layer.gaps[7]
        needle = layer.blob[start:end]
        for path in byte_files(tmp_path):
            data = path.read_bytes()
            if (at := data.find(needle)) >= 0:
                path.write_bytes(data[: at + 12] + bytes([data[at + 12] ^ 1]) + data[at + 13 :])
        assert zpull(tmp_path, "verify", check=False).code == 6
        run(tmp_path, registry, "old", "--max-gap", "0")
        assert verified(tmp_path).damaged == []
        assert_right(tmp_path, registry, "old")
