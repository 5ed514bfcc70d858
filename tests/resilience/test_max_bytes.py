"""`--max-bytes` is a promise.

No more than that is received, whatever becomes of the plan it was held against.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.harness.command import receipt
from tests.helpers.harness.rough import assert_right, run, versions, with_v1
from tests.helpers.servers.faults import Rule, cut, extra, flip, ignore_range, on
from tests.helpers.servers.registry import Registry

RATE = ("--rate", "4Mbit")
V2 = versions()["v2"]
PARTS, GZIP = V2.layers


@pytest.fixture
def home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_v1(tmp_path, tmp_path_factory.getbasetemp() / "v1")


def planned(home: Path) -> int:
    """What an update from v1 to v2 costs, by the plan.

    Its tables of contents are here afterwards.
    """
    with Registry(versions()) as registry:
        plan = receipt(home, "plan", registry.reference("v2"), *RATE)
    size: int = plan["estimate"]["bytes"]
    return size


LIES: dict[str, Rule] = {
    "loses its ranges": on(
        "blob", ignore_range(), when=lambda request: request.digest == PARTS.digest
    ),
    "sends a whole layer damaged": on(
        "blob", flip(10), when=lambda request: request.digest == GZIP.digest
    ),
    "sends parts damaged": on(
        "blob", *[flip(at) for at in range(10, len(PARTS.blob), 5000)], nth=1
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_no_more_is_received_than_allowed_from_a_host_that(name: str, home: Path) -> None:
    most = int(planned(home) * 1.005)
    with Registry(versions(), faults=[LIES[name]]) as registry:
        ended = run(home, registry, "v2", *RATE, "--max-bytes", str(most), check=9)
        assert ended.receipt["bytes"]["fetched"] <= most
        assert "--max-bytes" in ended.error
        registry._script._rules = []
        again = run(home, registry, "v2", *RATE).receipt
        assert again["bytes"]["fetched"] <= most
        assert_right(home, registry, "v2")


def test_a_host_without_ranges_takes_nothing_whole_before_the_plan_is_held_against_the_limit(
    home: Path,
) -> None:
    with Registry(versions(), single_range="200") as registry:
        ended = run(home, registry, "v2", "--max-bytes", "300k", "-j", "2", check=9)
        assert "the pull would fetch" in ended.error
        assert ended.receipt["bytes"]["fetched"] < 300_000
        run(home, registry, "v2", "--max-bytes", "1MB")
        assert_right(home, registry, "v2")


def test_a_pull_that_costs_just_what_is_allowed_succeeds(home: Path) -> None:
    most = planned(home)
    with Registry(versions()) as registry:
        spent = run(home, registry, "v2", *RATE, "--max-bytes", str(most)).receipt["bytes"]
        assert spent["fetched"] <= most
        assert_right(home, registry, "v2")


def test_breaks_cost_no_bytes_so_the_promise_is_kept_over_a_bad_link(home: Path) -> None:
    most = planned(home)
    with Registry(versions(), faults=[on("blob", cut(after=16 << 10))]) as registry:
        run(home, registry, "v2", *RATE, "--max-bytes", str(most))
        assert_right(home, registry, "v2")


def test_bytes_nobody_asked_for_count_too(home: Path) -> None:
    most = planned(home)
    with Registry(versions(), faults=[on("blob", extra(5000))]) as registry:
        ended = run(home, registry, "v2", *RATE, "--max-bytes", str(most), check=None)
        assert ended.code in (0, 9)
        assert ended.receipt["bytes"]["fetched"] <= most
