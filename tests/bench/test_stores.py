"""The measure of large stores, on a small one: it runs, and its store is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import plans, stores
from tests.bench.clients import Zpull
from tests.bench.measure import run
from zchunked.maintenance.usage import usage
from zchunked.store import Store


def test_a_made_up_store_is_measured(tmp_path: Path) -> None:
    stores.build(tmp_path, 2)
    with Store(tmp_path, reads_only=True) as store:
        first, second = usage(store)
    for one in (first, second):
        assert 0 < (one.shared or 0) < (one.size or 0)
    for name, work in stores.tasks(tmp_path, 2).items():
        assert stores.spent(work) < 60, name
    assert stores.verified_share(tmp_path / "other", 2 << 20) > 0


@pytest.mark.parametrize("is_indexed", [True, False])
def test_a_plan_finds_the_files_of_a_made_up_store(tmp_path: Path, *, is_indexed: bool) -> None:
    home = tmp_path / "home"
    files = plans.build(home / "store", 3, is_indexed=is_indexed, size=200)
    with plans.serving(files) as host:
        client = Zpull(Path(__file__).parents[2], options=("--exact",))
        cost = run(client.plan(home, host, "app", "next"), tmp_path)
    assert not cost.failed
    whole, exact = (
        next(way for way in cost.receipt["ways"] if way["way"] == name)
        for name in ("whole", "exact")
    )
    assert exact["bytes"] < whole["bytes"] / 2
    assert not is_indexed or plans.bytes_per_frame(home / "store") < 5000
