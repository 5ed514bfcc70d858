"""Power loss at every step of real pulls and of upkeep.

No row without its bytes, no repair, and the next command ends right.
"""

from __future__ import annotations

import io
import os
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.build.golden import Golden
from tests.helpers.build.images import read_layout
from tests.helpers.harness.command import environment
from tests.helpers.harness.crash import Op, crashes, record, strace
from tests.helpers.harness.pulls import pull
from tests.helpers.harness.rough import large, versions
from tests.helpers.servers.memory import MemorySource
from tests.helpers.servers.registry import Registry
from zchunked.client import Client
from zchunked.maintenance.gc import collect
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import Digest
from zchunked.options import GcOptions
from zchunked.store import Store
from zchunked.store.images import load

MISSING = strace() is None and not os.environ.get("ZPULL_REQUIRE_PEERS")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(MISSING, reason="strace is missing: apt-get install strace"),
]
V1, V2 = Golden("demo", "demo-v1"), Golden("demo", "demo-v2")
ADDED = large().layers[0]
BYTE_FILE = re.compile(r"blobs/[0-9a-f]{12}-\d+", re.ASCII)
SAMPLES = 15
"""Steps of each command after which the power goes, three times each. ZPULL_EXHAUSTIVE=1: all."""


@pytest.mark.parametrize("command", ["cold", "update"])
def test_after_a_power_loss_the_store_is_true(
    command: str, tmp_path: Path, swift: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert strace(), "strace is missing: apt-get install strace"
    store = tmp_path / "home" / "store"
    argv = [sys.executable, "-m", "zchunked", "-q"]
    with Registry(V1.layout) as registry:
        ops = record(
            [*argv, registry.reference("demo-v1")],
            environment(tmp_path / "home"),
            store,
            tmp_path / "trace",
        )
        if command == "update":
            # It proves what the pull left unproved, so it writes too.
            ops += record(
                [*argv, "verify"], environment(tmp_path / "home"), store, tmp_path / "trace1"
            )
            before = len(ops)
            ops += record(
                [*argv, registry.reference("demo-v2")],
                environment(tmp_path / "home"),
                store,
                tmp_path / "trace2",
            )
        else:
            before = 0
    assert sum(op.kind == "sync" for op in ops[before:]) > 3
    monkeypatch.setattr("zchunked.store.files.journal.boot_id", lambda: "after the power loss")
    monkeypatch.setattr("os.fsync", lambda handle: None)
    every = 1 if os.environ.get("ZPULL_EXHAUSTIVE") else max(1, (len(ops) - before) // 60)
    lost = crashes(ops, swift / "crashed", random.Random(7), every, before)
    for number, (step, kept, place) in enumerate(lost):
        with Store(place) as opened:
            for blob, _, _ in opened.blobs():
                assert not opened.drop_lost(blob), (
                    f"step {step} of {len(ops)}, {kept} kept: {ops[step]!r:.200}"
                )
            found = verify(opened)
            assert not found.damaged, (
                f"step {step} of {len(ops)}, {kept} kept: {ops[step]!r:.200}: {found}"
            )
            if number % 10 == 0:
                assert pull(MemorySource(read_layout(V2.layout), "demo-v2"), opened).image


@pytest.fixture(scope="module")
def upkeep(tmp_path_factory: pytest.TempPathFactory) -> Upkeep:
    """Two versions that share frames are pulled.

    One is removed, its bytes are collected, and a blob is taken in.
    """
    assert strace(), "strace is missing: apt-get install strace"
    folder = tmp_path_factory.mktemp("upkeep")
    argv = [sys.executable, "-m", "zchunked", "-q"]
    with Registry(versions()) as registry:
        first, second = registry.reference("v1"), registry.reference("v2")
        commands = {
            "v1": [first],
            "v2": [second, "--exact"],
            "rm": ["rm", first],
            "gc": ["gc"],
            "ingest": ["ingest", "--digest", ADDED.digest, "--size", str(ADDED.size)],
        }
        ops: list[Op] = []
        parts = {}
        for name, words in commands.items():
            some = record(
                [*argv, *words],
                environment(folder),
                folder / "store",
                folder / "trace",
                ADDED.blob if name == "ingest" else b"",
            )
            parts[name] = range(len(ops), len(ops) + len(some))
            ops += some
    return Upkeep(first, second, ops, parts)


@dataclass(frozen=True)
class Upkeep:
    """All that happened, and which of it was which command's. `first` is the image that went."""

    first: str
    second: str
    ops: list[Op]
    parts: dict[str, range]


@pytest.mark.parametrize("command", ["rm", "gc", "ingest"])
def test_after_a_power_loss_during_upkeep_the_store_is_true(
    command: str, upkeep: Upkeep, swift: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    its = upkeep.parts[command]
    some = upkeep.ops[its.start : its.stop]
    made = [op for op in some if op.kind == "create" and BYTE_FILE.fullmatch(op.path)]
    assert bool(made) == (command != "rm"), "gc compacts a file"
    monkeypatch.setattr("zchunked.store.files.journal.boot_id", lambda: "after the power loss")
    monkeypatch.setattr("os.fsync", lambda handle: None)
    every = 1 if os.environ.get("ZPULL_EXHAUSTIVE") else max(1, len(its) // SAMPLES)
    ops = upkeep.ops[: its.stop]
    dice = random.Random(8)
    for step, kept, place in crashes(ops, swift / "crashed", dice, every, its.start):
        said = f"step {step} of {its}, {kept} kept: {ops[step]!r:.200}"
        with Store(place) as opened:
            assert not verify(opened).damaged, said
            names = [image.name for image in opened.images()]
            assert names in ([upkeep.second, upkeep.first], [upkeep.second]), said
            assert command == "rm" or len(names) == 1, said
            for name in names:
                load(opened, name, None, None)
            digest = Digest(ADDED.digest)
            if opened.is_whole(digest):
                assert opened.read(digest, 0, ADDED.size) == ADDED.blob, said
        if step % 5 == 0:
            collect(place, GcOptions())
            with Client(place) as client:
                assert client.ingest(digest, io.BytesIO(ADDED.blob)) == ADDED.size, said
                assert not client.verify().damaged, said
