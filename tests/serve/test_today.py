"""What is saved today: counted from midnight on, whichever server sends it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Served, Start, until
from tests.serve.test_lease import BLOB, IMAGE, MANIFEST
from zchunked.serve.monitoring.page import human
from zchunked.serve.monitoring.today import Today
from zchunked.store import Store


def test_it_begins_anew_at_midnight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "zchunked.serve.monitoring.today._today"
    with Store(tmp_path / "store") as store:
        monkeypatch.setattr(name, lambda: 20261128)
        today = Today(store)
        today.add(sent=1000)
        today.remember()
        monkeypatch.setattr(name, lambda: 20261129)
        today.add(sent=500)
        today.add(fetched=200)
        assert (today.saved(100), today.saved(900)) == (200, 0)
        today.remember()
        assert Today(store).saved(0) == 300
        monkeypatch.setattr(name, lambda: 20261130)
        assert (today.saved(0), Today(store).saved(0)) == (0, 0)


def test_a_server_that_rests_has_written_down_what_it_counted(start: Start) -> None:
    """It may be killed then."""
    with Registry({"t": IMAGE}) as registry:
        pull_thrice(start(registry, rest_seconds=0.05))
        with Store(start.folder / "store") as beside:
            until(lambda: is_saved_twice(beside))


def test_a_server_started_anew_counts_on(start: Start) -> None:
    with Registry({"t": IMAGE}) as registry:
        with ExitStack() as stack:
            pull_thrice(Start(start.folder, stack)(registry))
        page = start(registry).ask("/").body.decode()
    assert f"<b>{human(2 * IMAGE.layers[0].size)}</b><span>saved today" in page


def pull_thrice(served: Served) -> None:
    served.ask(MANIFEST)
    for _ in range(3):
        assert len(served.ask(BLOB).body) == IMAGE.layers[0].size


def is_saved_twice(store: Store) -> bool:
    return Today(store).saved(0) > 1.9 * IMAGE.layers[0].size
