"""A server that nobody asks for anything holds nothing.

Collections beside it free what it has pulled and served.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.harness.rough import files
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start, until
from zchunked.findings import Freed
from zchunked.maintenance.gc import collect
from zchunked.options import GcOptions
from zchunked.serve.api.documents import Documents
from zchunked.serve.upstreams.lease import StoreLease
from zchunked.store import Store

IMAGE = image([gzip_layer(make_tar(files(5, 30, 100_000)))])
MANIFEST, BLOB = "/v2/local/demo/manifests/t", f"/v2/local/demo/blobs/{IMAGE.layers[0].digest}"
NONE = GcOptions(keep=frozenset())


def weight(store: Store) -> int:
    """Bytes of all its files."""
    return sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())


def test_what_was_served_can_be_collected_and_is_pulled_again(start: Start) -> None:
    with Registry({"t": IMAGE}) as registry:
        served = start(registry, rest_seconds=0.05)
        freed: list[Freed] = []

        def has_freed() -> bool:
            freed.append(collect(served.store.folder, NONE))
            return freed[-1].after < 500_000

        for _ in range(2):
            assert served.ask(MANIFEST).status == 200
            assert len(served.ask(BLOB).body) == IMAGE.layers[0].size
            until(has_freed)
        assert sum(one.blobs for one in freed) >= 6, "manifest, config and layer, twice"


def test_a_client_that_is_still_reading_keeps_what_it_reads(start: Start) -> None:
    with Registry({"t": IMAGE}) as registry:
        served = start(registry, rest_seconds=0.05)
        served.ask(MANIFEST)
        served.ask(BLOB)
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        connection.request("GET", BLOB)
        answer = connection.getresponse()
        data = answer.read(1000)
        until(lambda: collect(served.store.folder, NONE).images == [], 1)
        assert len(data + answer.read()) == IMAGE.layers[0].size
        connection.close()


def test_the_store_is_kept_below_its_budget_once_nobody_asks(start: Start) -> None:
    made = {
        f"v{number}": image([gzip_layer(make_tar(files(70 + number, 30, 10_000)))])
        for number in range(4)
    }
    with Registry(made) as registry:
        served = start(registry, rest_seconds=0.05, store_max=700_000)
        for tag, one in made.items():
            served.ask(f"/v2/local/demo/manifests/{tag}")
            assert (
                len(served.ask(f"/v2/local/demo/blobs/{one.layers[0].digest}").body)
                == one.layers[0].size
            )

        until(lambda: weight(served.store) <= 700_000)
        assert weight(served.store) > 300_000, "no more goes than has to"


def test_who_reads_answers_or_pulls_uses_it(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        lease = StoreLease(store, 0.0, None)
        with lease.use(), lease.use():
            assert not lease._has_closed(0)
        assert lease._has_closed(0)
        with lease.use():
            store.put(b"open again")


def test_probes_do_not_keep_it_from_resting(start: Start) -> None:
    with Registry({"t": IMAGE}) as registry:
        served = start(registry, rest_seconds=0.2)
        served.ask(MANIFEST)
        served.ask(BLOB)

        def has_freed() -> bool:
            for path in ("/metrics", "/healthz", "/readyz"):
                assert served.ask(path).status == 200
            return (
                collect(served.store.folder, NONE).images == [] and weight(served.store) < 500_000
            )

        until(has_freed)


def test_a_store_that_cannot_be_opened_again_is_said(start: Start) -> None:
    """In the form of the specification, to the access log and to probes.

    And it is opened once it can be.
    """
    with Registry({"t": IMAGE}) as registry:
        served = start(registry, rest_seconds=0.05)
        served.ask(MANIFEST)
        served.ask(BLOB)
        folder, aside = served.store.folder, served.store.folder.with_suffix(".aside")
        until(lambda: collect(folder, NONE).images == [] and weight(served.store) < 500_000)
        folder.rename(aside)
        folder.write_text("in the way")
        for path in (MANIFEST, BLOB, "/v2/local/demo/tags/list", "/"):
            answer = served.ask(path)
            [error] = json.loads(answer.body)["errors"]
            assert (answer.status, error["code"]) == (507, "STORE")
            assert str(folder) in error["message"]
            until(lambda error=error: served.access[-1].error == error["message"])
        ready = served.ask("/readyz")
        assert (ready.status, str(folder) in ready.body.decode()) == (503, True)
        assert [served.ask(path).status for path in ("/healthz", "/metrics", "/v2/")] == [200] * 3
        folder.unlink()
        aside.rename(folder)
        assert served.ask("/readyz").status == 200
        assert served.ask(MANIFEST).status == 200


def test_a_fault_of_the_server_is_told_in_the_form_of_the_specification(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("what nobody thought of")

    monkeypatch.setattr(Documents, "manifest", broken)
    with Registry({"t": IMAGE}) as registry:
        served = start(registry)
        answer = served.ask(MANIFEST)
        [error] = json.loads(answer.body)["errors"]
        assert (answer.status, error["code"]) == (500, "UNKNOWN")
        assert error["message"] == "KeyError in the server: 'what nobody thought of'"
        until(lambda: served.access and served.access[-1].error == error["message"])
