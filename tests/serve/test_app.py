"""The distribution API as engines use it: names, manifests, blobs, ranges, errors."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import ExitStack
from http.client import IncompleteRead
from pathlib import Path

import pytest

from tests.helpers.build.front import Index, chunked_layer, gzip_layer, image, index, make_tar
from tests.helpers.harness.rough import files
from tests.helpers.servers.accounts import Request
from tests.helpers.servers.answers import Answer
from tests.helpers.servers.faults import flip, on
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start, until
from zchunked.errors import IntegrityError
from zchunked.oci.digest import Digest
from zchunked.oci.platform import Platform
from zchunked.options import Options
from zchunked.ranges import ByteRange
from zchunked.serve.api.policy import Allowed, Clients
from zchunked.serve.monitoring.metrics import Metrics
from zchunked.serve.upstreams.flights import Flights
from zchunked.serve.upstreams.lease import StoreLease
from zchunked.serve.upstreams.upstream import Upstream
from zchunked.store import Store

V1 = image(
    [chunked_layer(make_tar(files(1, 40, 5000))), gzip_layer(make_tar(files(2, 30, 50_000)))]
)
V2 = image([chunked_layer(make_tar({**files(1, 40, 5000), **files(9, 3, 4000)})), V1.layers[1]])
ARM = image([gzip_layer(make_tar(files(3, 2, 500)))], platform="linux/arm64")
BOTH: Index = index([V1, ARM])
IMAGES = {"v1": V1, "v2": V2, "both": BOTH}


@pytest.mark.parametrize("form", ["/v2/local/demo/{}", "/v2/demo/{}?ns=local"])
def test_both_forms_of_a_name_give_manifests_and_blobs(form: str, start: Start) -> None:
    with Registry(IMAGES) as registry:
        served = start(registry)
        for what in ("v1", V1.digest):
            answer = served.ask(form.format(f"manifests/{what}"))
            assert (answer.status, answer.body) == (200, V1.manifest)
            assert answer.headers["Docker-Content-Digest"] == V1.digest
            assert answer.headers["Content-Type"] == json.loads(V1.manifest)["mediaType"]
        for digest, data in {
            V1.config_digest: V1.config,
            **{layer.digest: layer.blob for layer in V1.layers},
        }.items():
            head = served.ask(form.format(f"blobs/{digest}"), "HEAD")
            assert (head.status, head.body, head.headers["Content-Length"]) == (
                200,
                b"",
                str(len(data)),
            )
            answer = served.ask(form.format(f"blobs/{digest}"))
            assert (answer.status, answer.body) == (200, data)
            assert answer.headers["Docker-Content-Digest"] == digest


def test_an_update_costs_the_upstream_what_a_pull_costs(start: Start) -> None:
    with Registry(IMAGES) as registry:
        served = start(registry)
        before = 0
        for tag, wanted in (("v1", V1), ("v2", V2)):
            before = registry.accounts.blob_bytes
            served.ask(f"/v2/local/demo/manifests/{tag}")
            for layer in wanted.layers:
                assert served.ask(f"/v2/local/demo/blobs/{layer.digest}").body == layer.blob
        assert registry.accounts.blob_bytes - before < len(V2.layers[0].blob) / 2


def test_ranges(start: Start) -> None:
    blob = V1.layers[1].blob
    with Registry(IMAGES) as registry:
        served = start(registry)
        served.ask("/v2/local/demo/manifests/v1")
        path = f"/v2/local/demo/blobs/{V1.layers[1].digest}"
        one = served.ask(path, Range="bytes=100-199")
        assert (one.status, one.body) == (206, blob[100:200])
        assert one.headers["Content-Range"] == f"bytes 100-199/{len(blob)}"
        assert served.ask(path, Range="bytes=-7").body == blob[-7:]
        assert served.ask(path, Range=f"bytes={len(blob) - 9}-").body == blob[-9:]
        assert served.ask(path, Range="bytes=5-1").body == blob
        assert served.ask(path, Range="lines=5-7").body == blob
        assert served.ask(path, Range=f"bytes={len(blob)}-").status == 416
        several = served.ask(path, Range="bytes=0-9,100-109,500-599")
        assert several.status == 206
        boundary = several.headers.get_boundary()
        assert boundary
        parts = several.body.split(f"--{boundary}".encode())[1:-1]
        assert [part.split(b"\r\n\r\n", 1)[1][:-2] for part in parts] == [
            blob[0:10],
            blob[100:110],
            blob[500:600],
        ]


def test_without_prefetch_only_what_is_asked_for_comes(start: Start) -> None:
    first, second = V1.layers
    with Registry(IMAGES) as registry:
        served = start(registry, prefetch=False)
        served.ask("/v2/local/demo/manifests/v1")
        assert served.ask(f"/v2/local/demo/blobs/{V1.config_digest}").body == V1.config
        assert registry.accounts.blob_bytes <= len(V1.config) + 1  # a byte to learn its size by
        one = served.ask(f"/v2/local/demo/blobs/{second.digest}", Range="bytes=100-199,400-499")
        assert second.blob[100:200] in one.body
        assert registry.accounts.blob_bytes < 20_000
        assert served.ask(f"/v2/local/demo/blobs/{first.digest}").body == first.blob
        assert registry.accounts.blob_bytes < len(first.blob) + 20_000
        until(lambda: b"zpull_flights 0.0" in served.ask("/metrics").body)
        update = V2.layers[0]
        served.ask("/v2/local/demo/manifests/v2")
        assert served.ask(f"/v2/local/demo/blobs/{update.digest}").body == update.blob
        assert registry.accounts.blob_bytes < len(first.blob) + 20_000 + len(update.blob) / 2
        tail = served.ask(f"/v2/local/demo/blobs/{second.digest}", Range="bytes=300-")
        assert tail.body == second.blob[300:]


def test_a_server_that_was_restarted_knows_whose_blob_is_wanted(start: Start) -> None:
    update = V2.layers[0]
    with Registry(IMAGES) as registry:
        served = start(registry, prefetch=False)
        served.ask("/v2/local/demo/manifests/v1")
        served.ask(f"/v2/local/demo/blobs/{V1.layers[0].digest}")
        served.ask("/v2/local/demo/manifests/v2")
        before = registry.accounts.blob_bytes
        again = start(registry)
        assert again.ask(f"/v2/local/demo/blobs/{update.digest}").body == update.blob
        until(lambda: b"zpull_flights 0.0" in again.ask("/metrics").body)
        rest = len(V2.layers[1].blob) + len(V2.config)
        assert registry.accounts.blob_bytes - before < rest + len(update.blob) / 2


def test_many_clients_are_one_pull(start: Start) -> None:
    with Registry(IMAGES, rate=400_000) as registry:
        served = start(registry)
        bodies: list[bytes] = []

        def client() -> None:
            served.ask("/v2/local/demo/manifests/v1")
            bodies.append(served.ask(f"/v2/local/demo/blobs/{V1.layers[1].digest}").body)

        threads = [threading.Thread(target=client) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bodies == [V1.layers[1].blob] * 20
        until(lambda: not served.ask("/metrics").body.count(b"zpull_flights 1.0"))
        assert registry.accounts.blob_bytes <= sum(len(layer.blob) for layer in V1.layers) + len(
            V1.config
        )


def test_no_client_gets_a_whole_wrong_blob(start: Start) -> None:
    blob = bytearray(V1.layers[1].blob)
    blob[len(blob) // 2] ^= 1
    with Registry(IMAGES) as registry:
        registry.content.blobs[V1.layers[1].digest] = bytes(blob)
        served = start(registry)
        served.ask("/v2/local/demo/manifests/v1")
        with pytest.raises(IncompleteRead):
            served.ask(f"/v2/local/demo/blobs/{V1.layers[1].digest}")
        assert not served.store.is_whole(Digest(V1.layers[1].digest))


def test_a_server_that_ends_takes_its_pulls_along(tmp_path: Path) -> None:
    def is_pulling() -> bool:
        return any(one.name.startswith("zpull-") for one in threading.enumerate())

    with ExitStack() as stack:
        with Registry(IMAGES, rate=20_000) as registry:
            served = Start(tmp_path, stack)(registry, patience=60)
            served.ask("/v2/local/demo/manifests/v1")
            until(lambda: registry.accounts.blob_bytes > 0)
        stack.close()
        until(lambda: not is_pulling(), 5)


def test_what_was_sent_of_a_blob_that_comes_again_is_not_completed(start: Start) -> None:
    wanted = V1.layers[1]

    def has_the_beginning(request: Request) -> bool:  # other workers ask for what lies behind
        return request.digest == wanted.digest and (request.range or "bytes=0-").startswith(
            "bytes=0-"
        )

    wrong = on("any", flip(100), times=1, when=has_the_beginning)
    with Registry(IMAGES, faults=[wrong], rate=300_000) as registry:
        served = start(registry)
        path = f"/v2/local/demo/blobs/{wanted.digest}"
        served.ask("/v2/local/demo/manifests/v1")
        with pytest.raises(IncompleteRead):
            served.ask(path)
        assert served.ask(path).body == wanted.blob


def test_a_layer_that_is_proved_goes_out_before_the_others_are_here(start: Start) -> None:
    """Also one that is put together from frames of another."""
    after, other = V2.layers[0], gzip_layer(make_tar(files(7, 30, 9_000)))
    both = image([after, other])
    go_on = threading.Event()

    def late(answer: Answer, _: object) -> Answer:
        go_on.wait(30)
        return answer

    with Registry(
        {"v1": V1, "both": both},
        faults=[on("any", late, when=lambda one: one.digest == other.digest)],
    ) as registry:
        served = start(registry)
        served.ask("/v2/local/demo/manifests/v1")
        for layer in V1.layers:
            served.ask(f"/v2/local/demo/blobs/{layer.digest}")
        served.ask("/v2/local/demo/manifests/both")
        assert served.ask(f"/v2/local/demo/blobs/{after.digest}").body == after.blob
        assert not served.store.is_whole(Digest(other.digest))
        go_on.set()
        assert served.ask(f"/v2/local/demo/blobs/{other.digest}").body == other.blob


def test_while_the_upstream_is_down_digests_and_young_tags_are_served(start: Start) -> None:
    with Registry(IMAGES) as registry:
        served = start(registry, patience=1.0)
        served.ask("/v2/local/demo/manifests/v1")
        blob = f"/v2/local/demo/blobs/{V1.layers[1].digest}"
        served.ask(blob)
    answer = served.ask("/v2/local/demo/manifests/v1")
    assert (answer.status, answer.body) == (200, V1.manifest)
    assert answer.headers["Warning"].startswith("110 ")
    assert served.ask(f"/v2/local/demo/manifests/{V1.digest}").body == V1.manifest
    assert served.ask(blob).body == V1.layers[1].blob
    failed = served.ask("/v2/local/demo/manifests/v2")
    assert failed.status == 502
    assert "refused" in json.loads(failed.body)["errors"][0]["message"]


def test_offline_serves_the_store_as_it_is(start: Start) -> None:
    with Registry(IMAGES) as registry:
        served = start(registry)
        served.ask("/v2/local/demo/manifests/v1")
        for layer in V1.layers:
            served.ask(f"/v2/local/demo/blobs/{layer.digest}")
        until(lambda: b"zpull_flights 0.0" in served.ask("/metrics").body)
        asked = registry.accounts.count()
        offline = start(registry, offline=True)
        assert offline.ask("/v2/local/demo/manifests/v1").body == V1.manifest
        assert offline.ask(f"/v2/local/demo/manifests/{V1.digest}").body == V1.manifest
        assert offline.ask(f"/v2/local/demo/blobs/{V1.layers[0].digest}").body == V1.layers[0].blob
        assert offline.ask(f"/v2/local/demo/manifests/{V2.digest}").status == 404
        assert registry.accounts.count() == asked


def test_a_tag_that_has_not_moved_costs_a_head(start: Start) -> None:
    with Registry(IMAGES) as registry:
        served = start(registry)
        for _ in range(3):
            assert served.ask("/v2/local/demo/manifests/v1").body == V1.manifest
        methods = [one.method for one in registry.accounts.requests if one.kind == "manifest"]
        assert methods.count("GET") <= 2, methods  # the first answer, and the pull it began


def test_errors_have_the_specs_form(start: Start) -> None:
    absent = "sha256:" + "0" * 64
    with Registry(IMAGES) as registry:
        served = start(registry, allowed=Allowed.of(["ghcr.io/org"]))
        for path, status, code in (
            ("/v2/local/demo/manifests/no-such-tag", 404, "MANIFEST_UNKNOWN"),
            (f"/v2/local/demo/blobs/{absent}", 404, "BLOB_UNKNOWN"),
            ("/v2/evil.example/demo/manifests/v1", 403, "DENIED"),
            ("/v2/ghcr.io/other/demo/manifests/v1", 403, "DENIED"),
            ("/v2/demo/manifests/v1?ns=169.254.169.254", 403, "DENIED"),
            ("/v2/local/DEMO/manifests/v1", 400, "NAME_INVALID"),
            ("/v2/local/demo/blobs/sha256:xyz", 400, "DIGEST_INVALID"),
            ("/v2/local/demo/uploads/", 404, "UNSUPPORTED"),
            ("/v2/" + "a" * 2000 + "/manifests/v1", 400, "NAME_INVALID"),
        ):
            answer = served.ask(path)
            assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (
                status,
                code,
            ), path
        assert served.ask("/v2/local/demo/blobs/uploads/", "POST").status == 405


def test_tags_are_the_upstreams(start: Start) -> None:
    with Registry(IMAGES) as registry:
        served = start(registry)
        answer = served.ask("/v2/local/demo/tags/list?n=100&token=secret")
        assert answer.status == 200
        assert set(json.loads(answer.body)["tags"]) == set(IMAGES)
        assert json.loads(answer.body)["name"] == "local/demo"


def test_a_token_is_asked_for(start: Start) -> None:
    with Registry(IMAGES) as registry:
        served = start(registry, clients=Clients.of("0123456789abcdef-token"))
        refused = served.ask("/v2/")
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="zpull"')
        assert served.ask("/v2/", Authorization="Bearer wrong").status == 401
        assert served.ask("/v2/", Authorization="Bearer 0123456789abcdef-token").status == 200
        basic = "Basic eDowMTIzNDU2Nzg5YWJjZGVmLXRva2Vu"
        assert served.ask("/v2/", Authorization=basic).status == 200
        assert served.ask("/healthz").status == 200


def test_the_page_metrics_and_log(start: Start) -> None:
    with Registry(IMAGES) as registry:
        served = start(registry)
        served.ask("/v2/local/demo/manifests/v1")
        page = served.ask("/")
        assert page.status == 200
        assert b"<script" not in page.body
        assert b"zpull_client_bytes_total" in served.ask("/metrics").body
        until(lambda: len(served.access) >= 3)
        # Each line is written when its answer has been sent, so another one may be first.
        (first,) = [one for one in served.access if one.path == "/v2/local/demo/manifests/v1"]
        assert (first.method, first.status) == ("GET", 200)
        assert first.bytes == len(V1.manifest)


def test_what_no_manifest_explains_passes_through(start: Start) -> None:
    with Registry(IMAGES) as registry:
        served = start(registry)
        blob = served.ask(f"/v2/local/demo/blobs/{V1.layers[1].digest}").body
        assert hashlib.sha256(blob).hexdigest() == V1.layers[1].digest.partition(":")[2]


def test_a_blob_that_is_dropped_while_it_is_sent_ends_the_answer(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        digest = store.put(b"x" * 1000)
        metrics = Metrics(store, lambda: 0, lambda: 0)
        upstream = Upstream(
            store, lambda _: pytest.fail("asked"), Options(Platform("", "")), metrics
        )
        flights = Flights(store, upstream, StoreLease(store, None, None), prefetch=False)
        blob = flights.blob("local/demo", digest, is_wanted=True)
        store.evict(digest, [ByteRange(0, 1000)])
        with pytest.raises(IntegrityError, match="ask for it again"):
            list(blob.stream(ByteRange(0, 1000), is_held=True))
