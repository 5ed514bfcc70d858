"""A server that nobody asks for anything holds nothing: collections beside it free what it has
pulled and served.
"""

from __future__ import annotations

import http.client
from pathlib import Path

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.harness.rough import files
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start, until
from zchunked.maintenance.gc import Freed, GcOptions, collect
from zchunked.serve.lease import Leased, StoreLease
from zchunked.store import Store

IMAGE = image([gzip_layer(make_tar(files(5, 30, 100_000)))])
MANIFEST, BLOB = "/v2/local/demo/manifests/t", f"/v2/local/demo/blobs/{IMAGE.layers[0].digest}"
NONE = GcOptions(keep=frozenset())


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

        def weight() -> int:
            return sum(
                path.stat().st_size for path in served.store.folder.rglob("*") if path.is_file()
            )

        until(lambda: weight() <= 700_000)
        assert weight() > 300_000, "no more goes than has to"


def test_an_answer_counts_until_it_is_closed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        lease = StoreLease(store, 0.0, None)
        answer = Leased(lambda *_: [b"a", b"b"], lease)({}, lambda *_: None)
        assert not lease._has_closed(0)
        assert [*answer] == [b"a", b"b"]
        answer.close()  # type: ignore[attr-defined]
        answer.close()  # type: ignore[attr-defined]
        assert lease._has_closed(0)
        with lease.use():
            store.put(b"open again")
