"""How long a pull waits and when it gives up.

Retry-After, patience, caps, and what it says about its decisions.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.helpers.harness.command import Ended, zpull
from tests.helpers.harness.rough import assert_right, large, run, versions
from tests.helpers.servers.faults import (
    Fault,
    Outage,
    empty,
    fail,
    fail_as_ghcr,
    on,
    refuse,
    replaced,
    reset,
    stall,
)
from tests.helpers.servers.registry import Registry

_AGAIN = re.compile(r"zpull: (.*); try (\d+), karma (\S+) -> (\S+), again in ([\d.]+) s")


def waits(ended: Ended) -> list[float]:
    return [float(found[5]) for found in _AGAIN.finditer(ended.err)]


def assert_resumable(ended: Ended) -> None:
    assert ended.code == 5
    assert ended.error.endswith("run the same command to resume")


@pytest.mark.parametrize(
    ("fault", "shortest", "longest"),
    [
        (fail(429, retry_after=1), 1.0, 1.0),
        (fail(503, retry_after=0.5), 0.5, 0.5),
        (fail(429, retry_after=2, date=True), 0.9, 2.1),
        (fail(503, retry_after=-100, date=True), 0.0, 0.11),
        (fail(429, retry_after="soon"), 0.0, 0.11),
        (fail(429, body=b'{"errors":[{"message":"retry-after: 700ms"}]}'), 0.7, 0.7),
        (fail_as_ghcr(), 0.05, 0.11),
    ],
    ids=["seconds", "fraction", "date", "past date", "nonsense", "body", "ghcr"],
)
@pytest.mark.parametrize("kind", ["manifest", "blob"])
def test_the_servers_wish_is_granted(
    kind: str, fault: Fault, shortest: float, longest: float, tmp_path: Path
) -> None:
    with Registry(versions(), faults=[on(kind, fault, nth=1)]) as registry:  # type: ignore[arg-type]
        ended = run(tmp_path, registry, "v1", "-j", "1", "--explain-retries")
    (wait,) = waits(ended)
    assert shortest <= wait <= longest
    assert ended.receipt["retries"] == 1
    assert ended.receipt["seconds"] >= wait


def test_a_wish_beyond_our_patience_is_not_waited_for(tmp_path: Path) -> None:
    with Registry(versions(), faults=[on("blob", fail(429, retry_after=3600))]) as registry:
        ended = run(tmp_path, registry, "v1", check=5)
        assert "the server asks to wait 3600 s" in ended.error
    assert ended.receipt["seconds"] < 10


@pytest.mark.parametrize(
    "fault",
    [fail(503), reset(after=0), refuse(), replaced(b"{}")],
    ids="503 reset refuse odd".split(),
)
@pytest.mark.parametrize("kind", ["token", "toc", "blob"])
def test_without_patience_the_first_fault_is_the_end(
    kind: str, fault: Fault, tmp_path: Path
) -> None:
    rules = [on(kind, fault), on("blob", stall(60, after=0), nth=(2, 3))]  # type: ignore[arg-type]
    with Registry(versions(), auth="bearer", faults=rules) as registry:
        ended = run(tmp_path, registry, "v2", "--patience", "0", check=5)
    assert_resumable(ended)
    assert "after one try" in ended.error
    assert ended.receipt["retries"] == 0
    assert ended.receipt["seconds"] < 4, "nobody waits for a connection that hangs"


def test_retries_may_be_capped(tmp_path: Path) -> None:
    with Registry(versions(), faults=[on("toc", fail(500))]) as registry:
        ended = run(tmp_path, registry, "v1", "--retry", "3", "-j", "1", check=5)
        assert registry.accounts.count("toc") == 4
    assert_resumable(ended)
    assert ended.receipt["retries"] == 3
    assert "the 3 retries allowed are used up" in ended.error


@pytest.mark.parametrize(
    "fault", [empty(), reset(after=0), fail(503, retry_after=0)], ids=["empty", "reset", "at once"]
)
def test_an_endless_row_of_nothing_ends_and_is_no_flood(fault: Fault, tmp_path: Path) -> None:
    with Registry(versions(), faults=[on("blob", fault)]) as registry:
        began = time.monotonic()
        ended = run(tmp_path, registry, "v1", "--patience", "2", check=5)
        assert time.monotonic() - began < 15
        assert registry.accounts.count("blob") < 100
    assert_resumable(ended)


def test_a_deadline_ends_a_pull_that_goes_well(tmp_path: Path) -> None:
    with Registry({"big": large()}, rate=500_000) as registry:
        ended = run(tmp_path, registry, "big", "--deadline", "1.5s", check=5)
        assert 1.5 <= ended.receipt["seconds"] < 4
        assert "the deadline of 1.5 s has passed" in ended.error
        assert_resumable(ended)
        here, size = map(int, re.findall(r"(\d+) of (\d+) bytes are here", ended.error)[0])
        assert size == ended.receipt["bytes"]["image"]
        assert here == pytest.approx(registry.accounts.blob_bytes, rel=0.05)
        first = registry.accounts.blob_bytes
        registry.wire._rate = None
        again = run(tmp_path, registry, "big")
        assert again.receipt["bytes"]["cached"] >= here
        assert registry.accounts.blob_bytes - first <= 1.01 * (size - here)
        assert_right(tmp_path, registry, "big")


def test_every_decision_is_explained_to_people_and_to_programs(tmp_path: Path) -> None:
    faults = [on("blob", reset(after=1000), times=2), on("token", fail(503), times=1)]
    with Registry(versions(), auth="bearer", faults=faults) as registry:
        ended = run(tmp_path / "people", registry, "v1", "-j", "1", "--explain-retries")
    assert len(waits(ended)) == ended.receipt["retries"] == 3
    assert "broke the connection after 1000 body bytes" in ended.err
    assert re.search(r"again in [\d.]+ s, [\d.]+ kB to go", ended.err)
    assert "3 retries" in ended.err, "the end of a pull says what the faults were"
    with Registry(
        versions(), auth="bearer", faults=[*faults, on("blob", fail(404), nth=3)]
    ) as registry:
        ended = run(tmp_path / "programs", registry, "v1", "-j", "1", "--progress", "json", check=3)
    events = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    retried = [event for event in events if event["event"] == "retried"]
    assert len(retried) == 3
    assert set(retried[0]) == {
        "event",
        "cause",
        "karma_before",
        "karma_after",
        "wait",
        "attempt",
        "time",
    }
    assert all(one["karma_after"] == pytest.approx(one["karma_before"] - 1) for one in retried)


def test_giving_up_is_explained_too(tmp_path: Path) -> None:
    with Registry(versions(), faults=[on("toc", fail(500))]) as registry:
        ended = run(tmp_path, registry, "v1", "--patience", "1", "--explain-retries", check=5)
    assert re.search(r"karma \S+ -> -\S+, giving up: karma is spent", ended.err)


def test_a_failure_that_no_patience_mends_is_not_retried(tmp_path: Path) -> None:
    for kind, status, code in (
        ("manifest", 404, 3),
        ("toc", 404, 3),
        ("manifest", 403, 4),
        ("token", 403, 4),
    ):
        with Registry(versions(), auth="bearer", faults=[on(kind, fail(status))]) as registry:  # type: ignore[arg-type]
            ended = run(tmp_path / f"{kind}{status}", registry, "v1", check=code)
            assert ended.receipt["retries"] == 0


# ── nobody there ──


def test_a_name_that_does_not_exist_is_final(tmp_path: Path) -> None:
    ended = zpull(tmp_path, "registry.invalid/app:v1", check=False)
    assert ended.code == 5
    assert "registry.invalid: the name does not exist" in ended.error
    assert "run the same command" not in ended.error


@contextmanager
def refusing() -> Iterator[str]:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
    yield host


@contextmanager
def black_hole() -> Iterator[str]:
    """A host that does not even answer a SYN: its queue is full and nobody accepts."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def mute() -> Iterator[str]:
    """A host that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.timed
@pytest.mark.parametrize("host", [refusing, black_hole, mute], ids=lambda host: host.__name__)
def test_a_dead_server_is_given_up_after_the_patience(host: object, tmp_path: Path) -> None:
    with host() as name:  # type: ignore[operator]
        began = time.monotonic()
        ended = zpull(tmp_path, f"{name}/app:v1", "--patience", "5", check=False)
        seconds = time.monotonic() - began
    assert_resumable(ended)
    assert 3 <= seconds <= 12


@pytest.mark.parametrize("host", [refusing, mute], ids=lambda host: host.__name__)
def test_a_dead_server_without_patience(host: object, tmp_path: Path) -> None:
    with host() as name:  # type: ignore[operator]
        ended = zpull(
            tmp_path, f"{name}/app:v1", "--patience", "0", "--stall-timeout", "0.5", check=False
        )
    assert_resumable(ended)
    assert "after one try" in ended.error


# ── outages ──


@pytest.mark.timed
def test_eight_seconds_without_any_network_pass_by_default(tmp_path: Path) -> None:
    with Registry({"big": large()}, outages=[Outage(8, after_bytes=1_000_000)]) as registry:
        ended = run(tmp_path, registry, "big", "--explain-retries")
        assert ended.receipt["seconds"] >= 8
        assert ended.receipt["bytes"]["fetched"] == registry.accounts.body_bytes
        assert registry.accounts.sent_twice() == 0
        assert_right(tmp_path, registry, "big")
    assert 1 <= ended.receipt["retries"] < 60
    assert max(waits(ended)) <= 5


@pytest.mark.parametrize("silent", [False, True], ids=["reset", "silent"])
def test_an_outage_of_an_eighth_of_the_patience_passes(silent: bool, tmp_path: Path) -> None:
    outage = Outage(0.8, after_bytes=1_000_000, silent=silent)
    with Registry({"big": large()}, outages=[outage]) as registry:
        run(tmp_path, registry, "big", "--patience", "6")
        assert registry.accounts.sent_twice() == 0
        assert_right(tmp_path, registry, "big")


def test_a_registry_that_is_restarted_meanwhile(tmp_path: Path) -> None:
    """Refused at the level of TCP, then back on the same port."""
    from tests.helpers.harness.rough import started  # noqa: PLC0415

    with Registry({"big": large()}, rate=1_500_000) as first:
        port = int(first.host.rpartition(":")[2])
        with started(tmp_path, first.reference("big")) as process:
            while first.accounts.body_bytes < 1_000_000:
                time.sleep(0.01)
            first.__exit__(ValueError, None, None)
            time.sleep(1)
            with Registry({"big": large()}, port=port) as second:
                out, err = process.communicate(timeout=60)
                assert process.returncode == 0, err
                assert json.loads(out)["retries"] > 0
                sent = first.accounts.blob_bytes + second.accounts.blob_bytes
                # what lay in the socket when it died
                assert sent <= 1.15 * sum(map(len, large().blobs.values()))
                assert_right(tmp_path, second, "big")
