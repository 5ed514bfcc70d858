"""What an upstream does to clients: its failures are slow answers; what came is known."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.helpers.servers.accounts import Request
from tests.helpers.servers.faults import fail, on
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start
from tests.serve.test_app import IMAGES, V1, V2
from zchunked.pull.layer_prover import LayerProver
from zchunked.serve.api import documents


def test_an_update_waits_for_what_was_handed_out_and_is_not_recorded_yet(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients have all of an image before the store knows that it has it."""
    record, has_all = LayerProver.record, threading.Event()

    def late(self: LayerProver, *what: Any) -> None:
        assert has_all.wait(30)
        time.sleep(1)
        record(self, *what)

    with Registry(IMAGES) as registry:
        served = start(registry)
        with monkeypatch.context() as patch:
            patch.setattr(LayerProver, "record", late)
            served.ask("/v2/local/demo/manifests/v1")
            for layer in V1.layers:
                assert served.ask(f"/v2/local/demo/blobs/{layer.digest}").body == layer.blob
            before = registry.accounts.blob_bytes
            has_all.set()
            served.ask("/v2/local/demo/manifests/v2")
            update = V2.layers[0]
            assert served.ask(f"/v2/local/demo/blobs/{update.digest}").body == update.blob
        assert registry.accounts.blob_bytes - before < len(update.blob) / 2


def test_one_failure_upstream_is_no_failure_for_clients(start: Start) -> None:
    """Whatever is asked: also what no pull stands behind."""
    seen: set[str] = set()

    def is_first(request: Request) -> bool:
        key = f"{request.method} {request.path}"
        return key not in seen and not seen.add(key)  # type: ignore[func-returns-value]

    with Registry(IMAGES, faults=[on("any", fail(503), when=is_first)]) as registry:
        served = start(registry)
        blob = f"/v2/local/demo/blobs/{V1.layers[1].digest}"
        assert served.ask(blob, "HEAD").status == 200
        assert served.ask(blob).body == V1.layers[1].blob
        assert served.ask("/v2/local/demo/tags/list").status == 200
        assert served.ask(f"/v2/local/demo/referrers/{V1.digest}").status == 200
        assert served.ask("/v2/local/demo/manifests/v2").body == V2.manifest
    assert len(seen) >= 5


def test_an_older_answer_does_not_wait_for_all_of_the_patience(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_PATIENCE", 0.3)
    with Registry(IMAGES) as registry:
        served = start(registry, patience=300)
        served.ask("/v2/local/demo/manifests/v1")
    answer = served.ask("/v2/local/demo/manifests/v1")  # which has 30 seconds
    assert (answer.status, answer.body) == (200, V1.manifest)
    assert answer.headers["Warning"].startswith("110 ")
