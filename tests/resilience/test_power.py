"""Power loss at every step of a real pull: no row without its bytes, no repair, and the next pull
ends right.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.helpers.build.golden import Golden
from tests.helpers.build.images import read_layout
from tests.helpers.harness.command import environment
from tests.helpers.harness.crash import Op, crashes, record, strace
from tests.helpers.harness.pulls import pull
from tests.helpers.servers.memory import MemorySource
from tests.helpers.servers.registry import Registry
from zchunked.maintenance.verify import verify
from zchunked.store import Store
from zchunked.store.images import load

MISSING = strace() is None and not os.environ.get("ZPULL_REQUIRE_PEERS")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(MISSING, reason="strace is missing: apt-get install strace"),
]
V1, V2 = Golden("demo", "demo-v1"), Golden("demo", "demo-v2")


@pytest.mark.parametrize("command", ["cold", "update"])
def test_after_a_power_loss_the_store_is_true(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr("zchunked.store.journal.boot_id", lambda: "after the power loss")
    dice = random.Random(7)
    every = max(1, (len(ops) - before) // 100)
    for number, (step, kept, place) in enumerate(crashes(ops, tmp_path / "crashed", dice, every)):
        if step < before:
            continue
        with Store(place) as opened:
            for blob, _, _ in opened.blobs():
                assert not opened.drop_lost(blob), (
                    f"step {step} of {len(ops)}, {kept} kept: {ops[step]!r:.200}"
                )
            found = verify(opened)
            assert not found.damaged, (
                f"step {step} of {len(ops)}, {kept} kept: {ops[step]!r:.200}: {found}"
            )
            if number % 20 == 0:
                assert pull(MemorySource(read_layout(V2.layout), "demo-v2"), opened).image


def test_after_a_power_loss_during_a_collection_the_store_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert strace(), "strace is missing: apt-get install strace"
    home, store = tmp_path / "home", tmp_path / "home" / "store"
    argv = [sys.executable, "-m", "zchunked"]
    with Registry(V1.layout) as registry:
        first, second = registry.reference("demo-v1"), registry.reference("demo-v2")
        commands = [[first, "-q"], [second, "-q", "--exact"], ["rm", first], ["gc"]]
        ops: list[Op] = []
        before = 0
        for number, words in enumerate(commands):
            before = len(ops)
            ops += record([*argv, *words], environment(home), store, tmp_path / f"trace{number}")
    monkeypatch.setattr("zchunked.store.journal.boot_id", lambda: "after the power loss")
    every = max(1, (len(ops) - before) // 60)
    for step, kept, place in crashes(ops, tmp_path / "crashed", random.Random(8), every):
        if step < before:
            continue
        with Store(place) as opened:
            assert not verify(opened).damaged, (
                f"step {step} of {len(ops)}, {kept} kept: {ops[step]!r:.200}"
            )
            assert [image.name for image in opened.images()] == [second]
            load(opened, second, None, None)
