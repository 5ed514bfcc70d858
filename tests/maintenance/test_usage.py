"""What images weigh and share; one image verified alone, and quickly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.build.front import Image, chunked_layer, gzip_layer, image, make_tar
from tests.helpers.harness.command import zpull
from tests.helpers.harness.pulls import pull
from tests.helpers.harness.rough import files, versions
from tests.helpers.servers.memory import MemorySource
from tests.helpers.servers.registry import Registry
from zchunked.maintenance.gc import collect
from zchunked.maintenance.usage import usage
from zchunked.maintenance.verify import verify
from zchunked.options import GapOptions, GcOptions
from zchunked.store import Store

BASE = gzip_layer(make_tar(files(1, 5, 10_000)))
APPS = {
    f"app{number}": image([BASE, chunked_layer(make_tar(files(number, 4, 5_000)))])
    for number in (2, 3)
}


def weigh(made: Image) -> int:
    return len(made.config) + sum(layer.size for layer in made.layers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store(tmp_path) as store:
        for name, made in APPS.items():
            pull(MemorySource(made), store, f"host.example/{name}:t")
    return tmp_path


def test_a_common_layer_is_shared(folder: Path) -> None:
    with Store(folder) as store:
        found = usage(store)
    assert [row.image.name for row in found] == ["host.example/app3:t", "host.example/app2:t"]
    assert [row.size for row in found] == [weigh(APPS["app3"]), weigh(APPS["app2"])]
    assert [row.shared for row in found] == [BASE.size, BASE.size]
    assert {row.proved for row in found} <= {"blob", "both"}


def test_one_name_more_for_the_same_image_shares_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for name in ("host.example/a:t", "host.example/b:t"):
            pull(MemorySource(APPS["app2"]), store, name)
        assert [row.shared for row in usage(store)] == [0, 0]


def test_common_frames_are_shared_in_both_directions(tmp_path: Path) -> None:
    common = files(40, 30, 10_000)
    made = [
        image([chunked_layer(make_tar(common | files(41 + number, 5, 10_000)))])
        for number in range(3)
    ]
    with Store(tmp_path) as store:
        for number, one in enumerate(made):
            pull(
                MemorySource(one), store, f"host.example/app:v{number}", gaps=GapOptions(exact=True)
            )
    with Store(tmp_path, reads_only=True) as store:
        for row in usage(store):
            assert row.shared == pytest.approx(300_000, rel=0.02)
            assert 0 < (row.shared or 0) < (row.size or 0) - 45_000
        newest = usage(store)[0]
    with Store(tmp_path) as store:
        store.collector().forget_names(
            [(f"host.example/app:v{number}", "linux/amd64") for number in (0, 1)]
        )
    collect(tmp_path, GcOptions())
    with Store(tmp_path, reads_only=True) as store:
        (row,) = usage(store)
    assert (row.image, row.shared) == (newest.image, 0)


def test_verify_looks_at_the_named_image_alone(folder: Path) -> None:
    with Store(folder) as store:
        manifests = {one.name: one.manifest for one in store.images()}
        everything = verify(store)
        one = verify(store, only=[manifests["host.example/app2:t"]])
    assert 0 < one.blobs < everything.blobs
    assert one.bytes < everything.bytes


def test_a_quick_look_finds_short_files_and_no_flipped_bits(folder: Path) -> None:
    largest = max((folder / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with Store(folder) as store:
        assert verify(store, is_quick=True).damaged == []
    largest.write_bytes(data[:-5])
    with Store(folder) as store:
        assert len(verify(store, is_quick=True).damaged) == 1
        assert verify(store).damaged == [], "what was dropped is found once"


def test_the_commands_say_so(tmp_path: Path) -> None:
    with Registry(versions()) as registry:
        for tag in ("v1", "v2"):
            zpull(tmp_path, registry.reference(tag))
    (first, _) = json.loads(zpull(tmp_path, "images", "--format", "json").out)
    assert first["size"] > first["shared_size"] > 250_000, "frames that both versions have"
    assert first["proved"] in ("blob", "diff_id", "both", "mixed")
    assert "PROVED BY" in zpull(tmp_path, "images").out
    assert "sizes alone checked" in zpull(tmp_path, "verify", "--quick").out
    assert (
        json.loads(zpull(tmp_path, "verify", first["reference"], "--format", "json").out)["damaged"]
        == []
    )
    assert zpull(tmp_path, "verify", "host.example/none:t", check=False).code == 3
