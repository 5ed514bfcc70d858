"""Tokens and signed URLs that run out in mid-pull are renewed without cost, once per expiry.

For all workers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.harness.rough import assert_right, large, run, used
from tests.helpers.servers.accounts import Request
from tests.helpers.servers.faults import fail, on
from tests.helpers.servers.registry import Registry

SIZE = sum(map(len, large().blobs.values()))


def test_a_token_that_expires_every_twenty_requests(tmp_path: Path) -> None:
    with Registry({"big": large()}, auth="bearer", token_uses=20, multi_range="400") as registry:
        run(tmp_path, registry, "big", "-j", "8")
        receipt = run(tmp_path / "metered", registry, "big", "--max-gap", "0").receipt
        assert receipt["retries"] == 0
        assert registry.accounts.count() > 60, "enough requests for several expiries"
        served = registry.accounts.count() - registry.accounts.count(status=401)
        assert 10 < registry.accounts.count("token") <= served / 19 + 5, (
            "one renewal for all workers"
        )
        assert receipt["bytes"]["wasted"] <= 0.01 * receipt["bytes"]["fetched"], (
            "refusals and tokens"
        )
        assert_right(tmp_path / "metered", registry, "big")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_redirects_that_expire_every_two_seconds(name: str, tmp_path: Path) -> None:
    with Registry(
        {"big": large()},
        auth="bearer",
        redirect=True,
        url_seconds=2,
        rate=550_000,
        cdn_name=name,  # type: ignore[arg-type]
    ) as registry:
        receipt = run(tmp_path, registry, "big").receipt
        assert receipt["retries"] == 0
        assert receipt["seconds"] > 4, "it expired in mid-pull"
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes
        assert registry.accounts.sent_twice() == 0
        assert not registry.accounts.cdn_saw_authorization
        assert_right(tmp_path, registry, "big")


@pytest.mark.parametrize("uses", [1, 3])
def test_redirects_that_are_good_for_a_few_uses(uses: int, tmp_path: Path) -> None:
    with Registry(
        {"big": large()}, auth="bearer", redirect=True, url_uses=uses, token_uses=5
    ) as registry:
        receipt = run(tmp_path, registry, "big").receipt
        assert receipt["retries"] == 0
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes
        assert not registry.accounts.cdn_saw_authorization
        assert_right(tmp_path, registry, "big")


def test_a_registry_that_redirects_to_itself(tmp_path: Path) -> None:
    with Registry(
        {"big": large()}, auth="bearer", redirect=True, cdn_name="registry", url_uses=3
    ) as registry:
        receipt = run(tmp_path, registry, "big").receipt
        assert receipt["retries"] == 0
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes
        assert_right(tmp_path, registry, "big")


@pytest.mark.parametrize("status", [401, 403, 410])
def test_however_a_cdn_says_that_a_url_is_too_old(status: int, tmp_path: Path) -> None:
    seen: set[str] = set()

    def is_known(request: Request) -> bool:
        """A URL that has worked before."""
        known = request.path in seen
        seen.add(request.path)
        return known and request.host == "cdn"

    rule = on(("toc", "blob"), fail(status), times=3, when=is_known)
    with Registry({"big": large()}, auth="bearer", redirect=True, faults=[rule]) as registry:
        receipt = run(tmp_path, registry, "big").receipt
        assert used(registry) == [3]
        assert receipt["retries"] == 0
        assert_right(tmp_path, registry, "big")


def test_everything_expires_all_the_time_over_a_link_that_breaks(tmp_path: Path) -> None:
    rules = [on("blob", fail(503), probability=0.2)]
    with Registry(
        {"big": large()},
        auth="bearer",
        redirect=True,
        url_uses=4,
        token_uses=7,
        faults=rules,
        seed=5,
    ) as registry:
        receipt = run(tmp_path, registry, "big").receipt
        # Workers that wait for the same renewal share its failure.
        failures = registry.accounts.count(status=503)
        assert 1 <= failures <= receipt["retries"] <= 8 * failures
        assert not registry.accounts.cdn_saw_authorization
        assert_right(tmp_path, registry, "big")
