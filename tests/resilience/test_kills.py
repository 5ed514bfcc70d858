"""Pulls that are killed, interrupted, or not alone.

What arrived is never asked for again, and the store stays good.
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.harness.command import zpull
from tests.helpers.harness.rough import (
    assert_right,
    balanced,
    kill_after,
    large,
    run,
    started,
    verified,
    versions,
    with_v1,
)
from tests.helpers.servers.faults import Outage, fail, on, stall
from tests.helpers.servers.registry import Registry

SIZE = sum(map(len, large().blobs.values()))


@pytest.fixture(scope="module")
def clean_bytes(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What one pull costs that nobody disturbs."""
    with Registry({"big": large()}, auth="bearer") as registry:
        run(tmp_path_factory.mktemp("clean"), registry, "big")
        return registry.accounts.body_bytes


def kill_when_read(
    process: subprocess.Popen[str], registry: Registry, outages: list[Outage], size: int
) -> bool:
    """Kill once so many more bytes were sent, and read.

    What lies in a socket is lost with its owner.
    """
    until = registry.accounts.body_bytes + size
    while registry.accounts.body_bytes < until and process.poll() is None:
        time.sleep(0.002)
    outages.append(Outage(0.35, at=registry.wire.seconds, silent=True))
    time.sleep(0.25)
    return kill_after(process, registry, 0)


def test_twelve_kills_cost_next_to_nothing(clean_bytes: int, tmp_path: Path) -> None:
    dice = random.Random(1)
    outages: list[Outage] = []
    with Registry({"big": large()}, auth="bearer", rate=1_000_000, outages=outages) as registry:
        for _ in range(12):
            with started(tmp_path, registry.reference("big"), "-j", "4") as process:
                assert kill_when_read(process, registry, outages, dice.randint(100, SIZE // 16)), (
                    "killed before its end"
                )
                process.communicate()
            assert process.returncode == -signal.SIGKILL
        assert verified(tmp_path).damaged == []
        registry.wire._rate = None
        receipt = run(tmp_path, registry, "big").receipt
        # tokens and the tag's manifest are asked for by each run
        documents = 12 * (72 + 175 + len(large().manifest))
        assert registry.accounts.body_bytes <= 1.03 * clean_bytes + documents
        assert registry.accounts.sent_twice() <= 0.03 * SIZE
        assert receipt["bytes"]["cached"] > 0.3 * SIZE
        assert_right(tmp_path, registry, "big")
    assert zpull(tmp_path, "verify").code == 0


def test_kills_in_full_flight_cost_what_was_in_the_sockets(tmp_path: Path) -> None:
    dice = random.Random(2)
    rate, jobs, kills = 2_000_000, 4, 0
    with Registry({"big": large()}, rate=rate) as registry:
        for _ in range(6):
            with started(tmp_path, registry.reference("big"), "-j", str(jobs)) as process:
                kills += kill_after(process, registry, dice.randint(100, SIZE // 10))
                process.communicate()
        registry.wire._rate = None
        run(tmp_path, registry, "big")
        block = rate * 0.02
        assert registry.accounts.sent_twice() <= kills * jobs * 2 * block
        assert_right(tmp_path, registry, "big")


def test_kills_of_an_update_cost_next_to_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dice = random.Random(7)
    outages: list[Outage] = []
    home = with_v1(tmp_path, tmp_path_factory.mktemp("v1"))
    with Registry(versions(), rate=700_000, outages=outages) as registry:
        for _ in range(4):
            with started(home, registry.reference("v2")) as process:
                kill_when_read(process, registry, outages, dice.randint(5000, 100_000))
                process.communicate()
        run(home, registry, "v2")
        assert registry.accounts.sent_twice() <= 0.03 * registry.accounts.blob_bytes
        assert_right(home, registry, "v2")


def test_a_kill_before_the_first_byte_leaves_a_good_store(tmp_path: Path) -> None:
    with Registry({"big": large()}, latency=0.3) as registry:
        for wait in (0.02, 0.1, 0.2, 0.3, 0.5):
            with started(tmp_path, registry.reference("big")) as process:
                time.sleep(wait)
                process.kill()
                process.communicate()
        registry.latency = 0.0
        assert zpull(tmp_path, "verify").code == 0
        run(tmp_path, registry, "big")
        assert_right(tmp_path, registry, "big")


# ── Ctrl-C ──


@pytest.mark.parametrize("hangs", [False, True], ids=["flowing", "hanging"])
def test_an_interrupt_ends_the_pull_at_once_and_keeps_what_came(
    hangs: bool, tmp_path: Path
) -> None:
    rules = [on("blob", stall(60, after=50_000))] if hangs else []
    with Registry({"big": large()}, rate=1_000_000, faults=rules) as registry:
        with started(tmp_path, registry.reference("big")) as process:
            assert kill_after(process, registry, 300_000, 0)
            time.sleep(0.5)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            assert time.monotonic() - began < 3
        assert process.returncode == 130, err
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        assert re.fullmatch(
            (
                r"zpull: error: interrupted; \d+ of \d+ bytes are here \(\d+ %\), run the same "
                r"command to resume"
            ),
            last,
        )
        receipt = json.loads(out)
        balanced(receipt)
        assert receipt["error"]
        assert receipt["bytes"]["needed"] > 0.9 * (registry.accounts.blob_bytes - 100_000)
        assert receipt["bytes"]["wasted"] < 100_000
        first = registry.accounts.blob_bytes
        registry.wire._rate, registry._script._rules = None, []
        again = run(tmp_path, registry, "big").receipt
        assert again["bytes"]["cached"] >= receipt["bytes"]["needed"]
        assert first + again["bytes"]["fetched"] <= 1.05 * SIZE
        assert_right(tmp_path, registry, "big")


@pytest.mark.parametrize("kind", ["manifest", "toc"])
def test_an_interrupt_while_nothing_answers(kind: str, tmp_path: Path) -> None:
    with Registry({"big": large()}, faults=[on(kind, stall(60, after=-1))]) as registry:  # type: ignore[arg-type]
        with started(tmp_path, registry.reference("big")) as process:
            while not registry.accounts.count(kind):  # type: ignore[arg-type]
                time.sleep(0.01)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            assert time.monotonic() - began < 3
        assert process.returncode == 130, err
        assert err.splitlines()[-1].endswith("run the same command to resume")
        balanced(json.loads(out))


def test_an_interrupt_during_a_wait_ends_it(tmp_path: Path) -> None:
    with Registry({"big": large()}) as registry:
        gone = registry.reference("big")
    with started(tmp_path, gone, "--patience", "600", "--progress", "json") as process:
        assert process.stderr
        seen = 0
        while seen < 4 and (line := process.stderr.readline()):
            seen += '"retried"' in line
        assert seen == 4, line
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert time.monotonic() - began < 3
    assert process.returncode == 130, err


# ── two at once ──


@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_pull_the_same_image_at_once_both_end_right(
    count: int, tmp_path: Path
) -> None:
    with Registry({"big": large()}, auth="bearer", rate=6_000_000) as registry:
        with ExitStack() as stack:
            all_of_them = [
                stack.enter_context(started(tmp_path, registry.reference("big")))
                for _ in range(count)
            ]
            for process in all_of_them:
                out, err = process.communicate(timeout=120)
                assert process.returncode == 0, err
                balanced(json.loads(out))
        assert_right(tmp_path, registry, "big")
        before = registry.accounts.count()
        run(tmp_path, registry, "big")
        assert registry.accounts.count() - before <= 3, "manifest, challenge and token"


def test_one_is_killed_beside_another(tmp_path: Path) -> None:
    with Registry({"big": large()}, rate=3_000_000) as registry:
        with (
            started(tmp_path, registry.reference("big")) as one,
            started(tmp_path, registry.reference("big")) as two,
        ):
            kill_after(one, registry, SIZE // 2)
            one.communicate()
            with started(tmp_path, registry.reference("big")) as three:
                for process in (two, three):
                    _, err = process.communicate(timeout=60)
                    assert process.returncode == 0, err
        assert_right(tmp_path, registry, "big")


def test_verify_beside_a_pull_takes_nothing_away_from_it(tmp_path: Path) -> None:
    with Registry({"big": large()}, rate=2_000_000) as registry:
        with started(tmp_path, registry.reference("big")) as process:
            while process.poll() is None:
                assert zpull(tmp_path, "verify").code == 0
            _, err = process.communicate()
            assert process.returncode == 0, err
        assert registry.accounts.sent_twice() == 0
        assert_right(tmp_path, registry, "big")


# ── what was received already when a pull is stopped ──


@pytest.mark.parametrize("how", ["an interrupt", "a failure"])
def test_what_the_kernel_has_received_is_kept_when_a_pull_is_stopped(
    how: str, tmp_path: Path
) -> None:
    """Four answers of 400 kB lie in the sockets, and more of each never comes."""
    made = large(12_000_000)
    faults = [on("blob", stall(60, after=400_000))]
    if how == "a failure":
        faults.append(on("blob", fail(404), nth=5))
    with Registry({"big": made}, faults=faults) as registry:
        options = ("-j", "4" if how == "an interrupt" else "5", "--max-gap", "1000000")
        with started(tmp_path, registry.reference("big"), *options) as process:
            while registry.accounts.count("blob") < 4:
                time.sleep(0.001)
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)  # for the server to send
            if how == "an interrupt":
                process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGCONT)
            out, err = process.communicate(timeout=30)
        assert process.returncode == (130 if how == "an interrupt" else 3), err
        receipt = json.loads(out)
        assert registry.accounts.count("blob") >= 4
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes
        assert registry.accounts.blob_bytes >= 1_600_000
        registry._script._rules = []
        run(tmp_path, registry, "big")
        assert registry.accounts.sent_twice() == 0
        assert_right(tmp_path, registry, "big")
