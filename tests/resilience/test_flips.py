"""Bits flip, files shrink, go empty or go, one at a time, in every file of a store.

Found when it is used, healed by the next pull, never exported, and no registry is blamed.

A sample, the same each time; ZPULL_EXHAUSTIVE=1 takes fifty times as many, for an hour.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest

from tests.helpers.build.front import Image, chunked_layer, gzip_layer, image, make_tar
from tests.helpers.harness.pulls import pull
from tests.helpers.harness.rough import files, versions
from tests.helpers.servers.memory import MemorySource
from zchunked.client import Client
from zchunked.errors import LocalError, NotFoundError, ZPullError
from zchunked.events import Noted, Warned
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import Digest
from zchunked.options import GapOptions
from zchunked.store import Store

TIMES = 50 if os.environ.get("ZPULL_EXHAUSTIVE") else 1
GAPS = {
    "exported": GapOptions(),
    "exact": GapOptions(exact=True),
    "lean": GapOptions(max_gap=0),
}
"""Whether an export meets the damage first, or a pull of a new version, and that one's way."""
KINDS = {
    "index": ("index.sqlite", 16),
    "log": ("index.sqlite-wal", 16),
    "shared memory": ("index.sqlite-shm", 4),
    "journals": ("blobs/*.map", 4),
    "byte files": ("blobs/*-*[0-9]", 1),
    "marks": ("blobs/*.live", 1),
    "locks": ("[pc]*s", 1),
}
"""The files, and how many bits of each flip."""


@cache
def images() -> dict[str, Image]:
    """v3 shares frames with v1 and v2, and a gzip layer with v2; its download has begun."""
    mixed = files(1, 30, 10_000) | files(3, 30, 10_000) | files(9, 10, 10_000)
    chunked = chunked_layer(make_tar(dict(sorted(mixed.items(), key=lambda one: one[0][-4:]))))
    own = gzip_layer(make_tar(files(10, 10, 10_000)))
    return versions() | {"v3": image([chunked, versions()["v2"].layers[1], own])}


def name_of(tag: str) -> str:
    return f"host.example/app:{tag}"


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is lost here."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr("os.fdatasync", lambda handle: None)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process leaves that was killed while it pulled v3.

    Journals, its mark, and half of the index in the log.
    """
    folder = tmp_path_factory.mktemp("killed")
    with Store(folder / "live") as store:
        pull(MemorySource(versions()["v1"]), store, name_of("v1"))
        store._index.rows("PRAGMA wal_checkpoint(PASSIVE)")
        pull(MemorySource(versions()["v2"]), store, name_of("v2"), gaps=GAPS["exact"])
        store.learn("host.example", 5)
        store.remember_measures("host.example", {"rate": 1e6})
        made = images()["v3"]
        store.pulls.begin(name_of("v3"), "linux/amd64", store.put(made.manifest), 0)
        writers = [
            store.writer(Digest(layer.digest), layer.size)
            for layer in (made.layers[0], made.layers[2])
        ]
        for writer, layer in zip(writers, (made.layers[0], made.layers[2]), strict=True):
            writer.write(0, layer.blob[:30_000])
            writer.write(50_000, layer.blob[50_000:60_000])
        shutil.copytree(folder / "live", folder / "store")
        for writer in writers:
            writer.close()
    return folder / "store"


def flip(bit: int, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def append(data: bytes, path: Path) -> None:
    path.write_bytes(path.read_bytes() + data)


def cut(length: int, path: Path) -> None:
    os.truncate(path, length)


def damages(path: Path, flips: int, dice: random.Random) -> Iterator[Callable[[Path], None]]:
    size = path.stat().st_size
    yield Path.unlink
    if not size:
        yield partial(append, b"?")
        return
    for length in (0, *(dice.randrange(size) for _ in range(TIMES))):
        yield partial(cut, length)
    for _ in range(min(flips * TIMES, 8 * size)):
        yield partial(flip, dice.randrange(8 * size))


@pytest.mark.parametrize("first", GAPS)
@pytest.mark.parametrize("kind", KINDS)
def test_damage(kind: str, first: str, killed: Path, swift: Path) -> None:
    pattern, flips = KINDS[kind]
    dice = random.Random(kind)
    paths = sorted(killed.glob(pattern))
    assert paths
    cases = [(path, hurt) for path in paths for hurt in damages(path, flips, dice)]
    # each way its third of them
    for path, hurt in cases if TIMES > 1 else cases[[*GAPS].index(first) :: len(GAPS)]:
        said = f"{path.name}: {hurt}"
        shutil.rmtree(swift / "store", ignore_errors=True)
        shutil.copytree(killed, swift / "store")
        hurt(swift / "store" / path.relative_to(killed))
        if first == "exported":
            for tag in ("v2", "v1"):
                is_exported(swift, tag, said)
        for tag in ("v3", "v2", "v1"):
            healed(swift, tag, first, said)
        with Store(swift / "store") as store:
            verify(store)  # of what no image needed
            assert verify(store).damaged == [], said


def healed(folder: Path, tag: str, first: str, said: str) -> None:
    """By a pull; by the next one where the damage lies in what a pull does not read again."""
    pulled(folder, tag, first, said)
    if not is_exported(folder, tag, said):
        assert first != "exported" or tag == "v3", f"{said}: known damage stayed"
        pulled(folder, tag, first, said)
        assert is_exported(folder, tag, said), said


def pulled(folder: Path, tag: str, first: str, said: str) -> None:
    for _ in range(2):
        try:
            with Store(folder / "store") as store:
                outcome = pull(MemorySource(images()[tag]), store, name_of(tag), gaps=GAPS[first])
        except LocalError as error:
            if "run the same command again: it is rebuilt then" not in str(error):
                pytest.fail(f"{said}: {error}")
            continue
        for event in outcome.events:
            if isinstance(event, Noted | Warned):
                assert "registry" not in event.text, (said, event.text)
                assert "host.example" not in event.text, (said, event.text)
        return
    pytest.fail(f"{said}: a damaged index was not rebuilt")


def is_exported(folder: Path, tag: str, said: str) -> bool:
    """As the registry has it, or not at all."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    try:
        with Client(folder / "store") as client:
            client.export(name_of(tag), f"oci:{out}")
    except ZPullError as error:
        is_plain = isinstance(error, NotFoundError) or "damage" in str(error)
        if error.exit_code not in (3, 6, 8) or not is_plain or "registry" in str(error):
            pytest.fail(f"{said}: {error}")
        assert not (out / "index.json").exists(), said
        return False
    for path in (out / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, said
    (listed,) = json.loads((out / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(out, listed["digest"]))
    config = json.loads(blob(out, manifest["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in images()[tag].layers], said
    return True


def blob(out: Path, digest: str) -> bytes:
    return (out / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
