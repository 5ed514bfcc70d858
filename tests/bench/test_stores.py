"""The measure of large stores, on a small one: it runs, and its store is one."""

from __future__ import annotations

from pathlib import Path

from tests.bench import stores
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
