"""A client that is closed while its server starts: the server ends, however early that is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import zchunked
from zchunked.serve.server import Server


@pytest.mark.parametrize("moment", ["before it listens", "before it serves"])
def test_a_server_whose_client_is_closed_before_it_serves_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    client = zchunked.Client(tmp_path)
    name = "open" if moment == "before it listens" else "serve"
    does = getattr(Server, name)

    def late(server: Server) -> object:
        client.close()
        return does(server)

    monkeypatch.setattr(Server, name, late)
    serving = threading.Thread(
        target=client.serve, args=(zchunked.ServeSettings(listen="0"),), daemon=True
    )
    serving.start()
    serving.join(30)
    assert not serving.is_alive()
