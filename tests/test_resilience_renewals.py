"""Tokens and signed URLs that run out in mid-pull are renewed without cost, once per expiry, for all workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.faults import fail, on
from tests.helpers.registry import Registry
from tests.helpers.rough import assert_right, large, run

SIZE = sum(map(len, large().blobs.values()))


def test_a_token_that_expires_every_twenty_requests(tmp_path: Path) -> None:
    with Registry({"big": large()}, auth="bearer", token_uses=20, multi_range="400") as registry:
        run(tmp_path, registry, "big", "-j", "8")
        receipt = run(tmp_path / "metered", registry, "big", "--max-gap", "0").receipt
        assert receipt["retries"] == 0
        assert registry.accounts.count() > 60, "enough requests for several expiries"
        renewals = registry.accounts.count("token")
        assert renewals <= registry.accounts.count() / 20 + 8 + 2
        assert receipt["bytes"]["wasted"] < 5000
        assert_right(tmp_path / "metered", registry, "big")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_redirects_that_expire_every_two_seconds(name: str, tmp_path: Path) -> None:
    with Registry(
        {"big": large()}, auth="bearer", redirect=True, url_seconds=2, rate=550_000, cdn_name=name  # type: ignore[arg-type]
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
    with Registry({"big": large()}, auth="bearer", redirect=True, url_uses=uses, token_uses=5) as registry:
        receipt = run(tmp_path, registry, "big").receipt
        assert receipt["retries"] == 0
        assert receipt["bytes"]["fetched"] == registry.accounts.body_bytes
        assert not registry.accounts.cdn_saw_authorization
        assert_right(tmp_path, registry, "big")


@pytest.mark.parametrize("status", [401, 403, 410])
def test_however_a_cdn_says_that_a_url_is_too_old(status: int, tmp_path: Path) -> None:
    rule = on(("toc", "blob"), fail(status), nth=(2, 5), when=lambda request: request.host == "cdn")
    with Registry({"big": large()}, auth="bearer", redirect=True, faults=[rule]) as registry:
        receipt = run(tmp_path, registry, "big").receipt
        assert receipt["retries"] == 0
        assert_right(tmp_path, registry, "big")


def test_everything_expires_all_the_time_over_a_link_that_breaks(tmp_path: Path) -> None:
    rules = [on("blob", fail(503), probability=0.2)]
    with Registry(
        {"big": large()}, auth="bearer", redirect=True, url_uses=4, token_uses=7, faults=rules, seed=5
    ) as registry:
        receipt = run(tmp_path, registry, "big").receipt
        assert receipt["retries"] == sum(
            request.status == 503 for request in registry.accounts.requests
        ), "each 503 is a retry, no renewal is"
        assert not registry.accounts.cdn_saw_authorization
        assert_right(tmp_path, registry, "big")
