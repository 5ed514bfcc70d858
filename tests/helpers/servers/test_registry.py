"""The loopback registry: what it serves, how it misbehaves, and whether its accounts are true."""

from __future__ import annotations

import email.parser
import email.utils
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.helpers.build.front import (
    Image,
    chunked_layer,
    every,
    image,
    make_tar,
    sha256,
    write_layout,
)
from tests.helpers.servers.accounts import Accounts, Request, covered
from tests.helpers.servers.answers import parse_ranges
from tests.helpers.servers.faults import (
    Fault,
    Outage,
    Rule,
    chunked,
    claim_gzip,
    close,
    cut,
    cut_chunked,
    empty,
    extra,
    fail,
    fail_as_ghcr,
    flip,
    garbage_boundary,
    garbage_type,
    ignore_range,
    missing,
    no_boundary,
    no_content_range,
    on,
    refuse,
    replaced,
    reset,
    shift_content_range,
    stall,
    trickle,
    wrong_total,
)
from tests.helpers.servers.registry import Registry
from tests.helpers.servers.tickets import basic

FILES = {
    f"f{n}": bytes((n * 31 + at * 7 + at // 251) % 256 for at in range(2000)) for n in range(20)
}


@pytest.fixture(scope="module")
def one() -> Image:
    return image([chunked_layer(make_tar(FILES), cut=every(700))])


@pytest.fixture
def serve(one: Image) -> Iterator[Callable[..., Registry]]:
    started: list[Registry] = []

    def start(*faults: Rule, **switches: Any) -> Registry:
        registry = Registry({"v1": one}, faults=faults, **switches)
        started.append(registry.__enter__())
        return registry

    yield start
    for registry in started:
        registry.__exit__(None, None, None)


class Reply:
    """A response read to its end, whatever that end is."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.error: Exception | None = None
        self.body = b""
        try:
            while piece := response.read1(4096):
                self.body += piece
            if response.length:
                self.error = EOFError(f"{response.length} bytes are missing")
        except (http.client.IncompleteRead, ConnectionError) as error:
            self.error = error


def get(
    registry: Registry, path: str, *, host: str | None = None, method: str = "GET", **headers: str
) -> Reply:
    connection = http.client.HTTPConnection(host or registry.host, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        with connection.getresponse() as response:
            return Reply(response)
    finally:
        connection.close()


def blob_path(one: Image) -> str:
    return f"/v2/demo/blobs/{one.layers[0].digest}"


def parts(reply: Reply) -> list[tuple[str, bytes]]:
    head = f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n".encode("latin-1")
    message = email.parser.BytesParser().parsebytes(head + reply.body)
    found = []
    for part in message.walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            found.append((str(part["Content-Range"]), payload))
    return found


# ── what it serves ──


def test_documents(one: Image, serve: Callable[..., Registry]) -> None:
    registry = serve()
    for name in ("v1", one.digest):
        reply = get(registry, f"/v2/demo/manifests/{name}")
        assert (reply.status, reply.body) == (200, one.manifest)
        assert reply.headers["Content-Type"] == one.media_type
        assert reply.headers["Docker-Content-Digest"] == one.digest
    assert get(registry, "/v2/").status == 200
    assert json.loads(get(registry, "/v2/demo/tags/list").body) == {"name": "demo", "tags": ["v1"]}
    assert get(registry, f"/v2/demo/blobs/{one.config_digest}").body == one.config
    head = get(registry, "/v2/demo/manifests/v1", method="HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (
        200,
        b"",
        str(len(one.manifest)),
    )
    for path in (
        "/v2/demo/manifests/v2",
        "/v2/other/manifests/v1",
        f"/v2/demo/blobs/{sha256(b'')}",
        "/nothing",
    ):
        assert get(registry, path).status == 404
    assert get(registry, "/v2/demo/blobs/uploads/", method="POST").status == 405
    kinds = [request.kind for request in registry.accounts.requests]
    assert kinds[:6] == ["manifest", "manifest", "ping", "tags", "config", "manifest"]


def test_a_layout_directory_and_its_static_form(one: Image, tmp_path: Path) -> None:
    with Registry(write_layout(tmp_path, {"v1": one})) as registry:
        assert registry.reference("v1") == f"{registry.host}/demo:v1"
        found = json.loads(get(registry, "/layout/index.json").body)
        assert found["manifests"][0]["digest"] == one.digest
        assert get(registry, f"/layout/blobs/{one.digest.replace(':', '/')}").body == one.manifest
        layer = one.layers[0]
        reply = get(registry, f"/layout/blobs/{layer.digest.replace(':', '/')}", Range="bytes=5-9")
        assert reply.body == layer.blob[5:10]
        assert registry.accounts.bytes_by_blob == {layer.digest: [(5, 10)]}


def test_one_range(one: Image, serve: Callable[..., Registry]) -> None:
    registry, layer = serve(), one.layers[0]
    for header, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        (f"bytes={layer.size - 5}-", layer.size - 5, layer.size),
        ("bytes=-7", layer.size - 7, layer.size),
        (f"bytes=10-{layer.size + 100}", 10, layer.size),
    ):
        reply = get(registry, blob_path(one), Range=header)
        assert (reply.status, reply.body) == (206, layer.blob[start:end])
        assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/{layer.size}"
    late = get(registry, blob_path(one), Range=f"bytes={layer.size}-")
    assert (late.status, late.headers["Content-Range"]) == (416, f"bytes */{layer.size}")
    assert get(registry, blob_path(one), Range="lines=1-2").status == 200
    assert layer.toc_at
    get(registry, blob_path(one), Range=f"bytes={layer.toc_at.offset}-{layer.toc_at.end - 1}")
    assert [request.kind for request in registry.accounts.requests[-2:]] == ["blob", "toc"]


@pytest.mark.parametrize("habit", ["206", "reordered", "coalesced"])
def test_many_ranges(one: Image, serve: Callable[..., Registry], habit: str) -> None:
    registry, blob = serve(multi_range=habit), one.layers[0].blob
    reply = get(registry, blob_path(one), Range="bytes=10-19, 50-59,1000-1999")
    want = [(10, 20), (50, 60), (1000, 2000)]
    want = {"206": want, "reordered": want[::-1], "coalesced": [(10, 60), (1000, 2000)]}[habit]
    assert parts(reply) == [(f"bytes {a}-{b - 1}/{len(blob)}", blob[a:b]) for a, b in want]
    (request,) = registry.accounts.requests
    assert request.spans == want
    assert request.body_bytes == len(reply.body) == int(reply.headers["Content-Length"])
    assert registry.accounts.blob_bytes == sum(b - a for a, b in want)
    assert get(registry, blob_path(one), Range="bytes=10-19,25-29").status == 206


@pytest.mark.parametrize(
    ("habit", "status", "size"),
    [
        ("single-only-first", 206, 10),
        ("200", 200, None),
        ("400", 400, 24),
        ("416", 416, 24),
        ("501", 501, 24),
    ],
)
def test_many_ranges_unwelcome(
    one: Image, serve: Callable[..., Registry], habit: str, status: int, size: int | None
) -> None:
    reply = get(serve(multi_range=habit), blob_path(one), Range="bytes=10-19,1000-1999")
    assert (reply.status, len(reply.body)) == (status, one.layers[0].size if size is None else size)


@pytest.mark.parametrize(
    ("habit", "want"),
    [
        ("200", [(200, "all", False), (200, "all", False)]),
        ("200-with-content-range", [(200, "part", True), (200, "part", True)]),
        ("200-then-206", [(200, "all", False), (206, "part", True)]),
        ("501", [(501, "none", False), (501, "none", False)]),
    ],
)
def test_one_range_unwelcome(
    one: Image, serve: Callable[..., Registry], habit: str, want: list[Any]
) -> None:
    registry, blob = serve(single_range=habit), one.layers[0].blob
    bodies = {"all": blob, "part": blob[10:20], "none": b"Unsupported client range"}
    for status, body, ranged in want:
        reply = get(registry, blob_path(one), Range="bytes=10-19")
        assert (reply.status, reply.body, "Content-Range" in reply.headers) == (
            status,
            bodies[body],
            ranged,
        )


def test_too_many_ranges(one: Image, serve: Callable[..., Registry]) -> None:
    registry = serve(max_ranges=2)
    assert get(registry, blob_path(one), Range="bytes=0-0,200-200").status == 206
    assert get(registry, blob_path(one), Range="bytes=0-0,200-200,400-400").status == 400


# ── who may ──


def test_basic(serve: Callable[..., Registry]) -> None:
    registry = serve(auth="basic", credentials=("me", "mine"))
    refused = get(registry, "/v2/")
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="loopback"')
    assert get(registry, "/v2/", Authorization=basic(("me", "yours"))).status == 401
    assert get(registry, "/v2/", Authorization=basic(("me", "mine"))).status == 200
    assert [request.authorized for request in registry.accounts.requests] == [False, True, True]


def token(registry: Registry, **headers: str) -> Reply:
    return get(registry, "/token?service=loopback&scope=repository:demo:pull", **headers)


def test_bearer(serve: Callable[..., Registry]) -> None:
    registry = serve(auth="bearer", token_uses=2)
    challenge = get(registry, "/v2/demo/manifests/v1").headers["WWW-Authenticate"]
    assert (
        challenge
        == f'Bearer realm="{registry.url}/token",service="loopback",scope="repository:demo:pull"'
    )
    bearer = "Bearer " + json.loads(token(registry).body)["token"]
    replies = [get(registry, "/v2/demo/manifests/v1", Authorization=bearer) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 401]
    assert 'error="invalid_token"' in replies[2].headers["WWW-Authenticate"]
    other = json.loads(get(registry, "/token?service=loopback&scope=repository:other:pull").body)[
        "token"
    ]
    assert get(registry, "/v2/demo/manifests/v1", Authorization=f"Bearer {other}").status == 401
    assert get(registry, "/token?service=elsewhere").status == 400
    assert registry.accounts.count("token", status=200) == 2


def test_tokens_for_some_and_for_a_while(serve: Callable[..., Registry]) -> None:
    registry = serve(auth="bearer", credentials=("me", "mine"), token_seconds=0.05)
    assert token(registry).status == 401
    answer = json.loads(token(registry, Authorization=basic(("me", "mine"))).body)
    bearer = f"Bearer {answer['token']}"
    assert answer["expires_in"] == 1
    assert get(registry, "/v2/", Authorization=bearer).status == 200
    time.sleep(0.06)
    assert get(registry, "/v2/", Authorization=bearer).status == 401


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_redirects(one: Image, serve: Callable[..., Registry], name: str) -> None:
    registry = serve(redirect=True, cdn_name=name, url_uses=2)
    reply = get(registry, blob_path(one), Range="bytes=5-9")
    url = urlsplit(reply.headers["Location"])
    assert (reply.status, url.netloc, reply.body) == (307, registry.cdn, b"over there")
    path = f"{url.path}?{url.query}"
    assert get(registry, path, host=url.netloc, Range="bytes=5-9").body == one.layers[0].blob[5:10]
    assert not registry.accounts.cdn_saw_authorization
    assert get(registry, path, host=url.netloc, Authorization="Bearer x").status == 200
    assert registry.accounts.cdn_saw_authorization
    assert get(registry, path, host=url.netloc).status == 403
    assert get(registry, url.path, host=url.netloc).status == 403
    found = [(request.host, request.kind) for request in registry.accounts.requests]
    assert found == [("registry", "redirect"), *[("cdn", "blob")] * 4]
    assert get(registry, f"/v2/demo/blobs/{sha256(b'')}").status == 404


# ── faults ──


@pytest.mark.parametrize("fault", [refuse(), refuse(how="rst"), reset(after=-1)])
def test_no_answer_at_all(one: Image, serve: Callable[..., Registry], fault: Fault) -> None:
    registry = serve(on("blob", fault, times=1))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get(registry, blob_path(one))
    assert get(registry, blob_path(one)).body == one.layers[0].blob
    assert [request.status for request in registry.accounts.requests] == [None, 200]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (cut(after=1234), EOFError),
        (cut(after=0), EOFError),
        (reset(after=1234), ConnectionResetError),
        (reset(after=0), ConnectionResetError),
        (cut_chunked(after=1234), http.client.IncompleteRead),
    ],
)
def test_a_body_that_breaks_off(
    one: Image, serve: Callable[..., Registry], fault: Fault, error: type[Exception]
) -> None:
    registry = serve(on("blob", fault))
    reply = get(registry, blob_path(one), Range="bytes=10-5009")
    assert isinstance(reply.error, error)
    assert len(reply.body) in {0, 1234}
    assert reply.body == one.layers[0].blob[10 : 10 + len(reply.body)]
    (request,) = registry.accounts.requests
    assert request.body_bytes == len(reply.body)
    assert request.spans == ([(10, 1244)] if reply.body else [])


def test_breaking_off_in_the_second_part(one: Image, serve: Callable[..., Registry]) -> None:
    whole = len(get(serve(), blob_path(one), Range="bytes=0-99,1000-1099").body)
    registry = serve(on("blob", reset(after=whole - 60)))
    reply = get(registry, blob_path(one), Range="bytes=0-99,1000-1099")
    assert len(reply.body) == whole - 60
    ((first, second),) = [request.spans for request in registry.accounts.requests]
    assert (first, second[0]) == ((0, 100), 1000)
    assert reply.body.endswith(one.layers[0].blob[second[0] : second[1]])


def test_sound_though_unusual(one: Image, serve: Callable[..., Registry]) -> None:
    registry = serve(
        on("blob", chunked(), nth=1),
        on("blob", close(), nth=2),
        on("blob", trickle(900, 0.001), nth=3),
    )
    for _ in range(3):
        reply = get(registry, blob_path(one), Range="bytes=0-4999")
        assert (reply.body, reply.error) == (one.layers[0].blob[:5000], None)
    assert [request.body_bytes for request in registry.accounts.requests] == [5000] * 3


def test_stalls(one: Image, serve: Callable[..., Registry]) -> None:
    registry = serve(on("blob", stall(0.05, after=-1), stall(0.05, after=1000)))
    began = time.monotonic()
    reply = get(registry, blob_path(one), Range="bytes=0-1999")
    assert reply.body == one.layers[0].blob[:2000]
    assert 0.1 <= time.monotonic() - began < 1


def test_a_stall_ends_with_the_server(one: Image) -> None:
    with Registry({"v1": one}, faults=[on("blob", stall(60, after=10))]) as registry:
        replies: list[Reply] = []
        client = threading.Thread(target=lambda: replies.append(get(registry, blob_path(one))))
        client.start()
        while registry.accounts.body_bytes < 10:
            time.sleep(0.001)
        began = time.monotonic()
    client.join()
    assert time.monotonic() - began < 1
    assert len(replies[0].body) == 10


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_another_status(one: Image, serve: Callable[..., Registry], status: int) -> None:
    registry = serve(on(("manifest", "blob"), fail(status, retry_after=1.5), nth=(1, 3)))
    replies = [
        get(registry, "/v2/demo/manifests/v1"),
        *(get(registry, blob_path(one)) for _ in range(3)),
    ]
    assert [reply.status for reply in replies] == [status, 200, status, 200]
    assert replies[0].headers["Retry-After"] == "1.5"
    assert registry.accounts.body_bytes == sum(len(reply.body) for reply in replies)
    assert registry.accounts.blob_bytes == 2 * one.layers[0].size


def test_when_to_come_back(serve: Callable[..., Registry]) -> None:
    registry = serve(
        on("ping", fail(503, retry_after=90, date=True), nth=1), on("ping", fail_as_ghcr(), nth=2)
    )
    dated, hinted = get(registry, "/v2/"), get(registry, "/v2/")
    moments = [
        email.utils.parsedate_to_datetime(dated.headers[name]) for name in ("Date", "Retry-After")
    ]
    assert 88 <= (moments[1] - moments[0]).total_seconds() <= 91
    assert (hinted.status, hinted.headers["Retry-After"]) == (429, None)
    assert "retry-after: 880µs" in hinted.body.decode()


@pytest.mark.parametrize(
    ("fault", "status", "body", "content_range"),
    [
        (shift_content_range(), 206, (10, 20), "bytes 11-20/{size}"),
        (wrong_total(7), 206, (10, 20), "bytes 10-19/{size+7}"),
        (no_content_range(), 206, (10, 20), None),
        (ignore_range(), 200, (0, None), None),
        (empty(), 206, (10, 10), "bytes 10-19/{size}"),
        (missing(3), 206, (10, 17), "bytes 10-19/{size}"),
        (missing(30), 206, (10, 10), "bytes 10-19/{size}"),
    ],
)
def test_the_wrong_bytes(
    one: Image,
    serve: Callable[..., Registry],
    fault: Fault,
    status: int,
    body: tuple[int, int | None],
    content_range: str | None,
) -> None:
    reply = get(serve(on("blob", fault)), blob_path(one), Range="bytes=10-19")
    blob = one.layers[0].blob
    assert (reply.status, reply.body) == (status, blob[slice(*body)])
    want = content_range and content_range.replace("{size+7}", str(len(blob) + 7)).replace(
        "{size}", str(len(blob))
    )
    assert reply.headers["Content-Range"] == want
    assert reply.error is None


def test_more_than_asked_for(one: Image, serve: Callable[..., Registry]) -> None:
    registry = serve(on("blob", extra(4), nth=1), on("blob", replaced(b"<html>"), nth=2))
    blob = one.layers[0].blob
    assert get(registry, blob_path(one), Range="bytes=10-19").body == blob[10:20] + b"\xee" * 4
    assert get(registry, blob_path(one), Range="bytes=10-19").body == b"<html>"
    assert (registry.accounts.body_bytes, registry.accounts.blob_bytes) == (20, 10)


def test_a_flipped_bit(one: Image, serve: Callable[..., Registry]) -> None:
    registry, blob = serve(on("blob", flip(15), times=2)), one.layers[0].blob
    bodies = [get(registry, blob_path(one), Range="bytes=10-19").body for _ in range(3)]
    assert [[a ^ b for a, b in zip(body, blob[10:20], strict=True)] for body in bodies] == [
        [0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        [0] * 10,
    ]


@pytest.mark.parametrize(
    ("fault", "header", "value"),
    [
        (garbage_type(), "Content-Type", "\x01;;=garbage"),
        (garbage_boundary(), "Content-Type", "multipart/byteranges; boundary=never"),
        (no_boundary(), "Content-Type", "multipart/byteranges"),
        (claim_gzip(), "Content-Encoding", "gzip"),
    ],
)
def test_misleading_headers(
    one: Image, serve: Callable[..., Registry], fault: Fault, header: str, value: str
) -> None:
    reply = get(serve(on("blob", fault)), blob_path(one), Range="bytes=0-9,1000-1009")
    assert reply.headers[header] == value
    assert one.layers[0].blob[1000:1010] in reply.body


def test_chance_is_the_same_in_every_run(one: Image) -> None:
    runs = []
    for seed in (1, 1, 2):
        rules = [
            on("blob", fail(500), probability=0.5),
            on("blob", reset(after=(0, 500)), nth=range(10, 20)),
        ]
        with Registry({"v1": one}, faults=rules, seed=seed) as registry:
            replies = [get(registry, blob_path(one), Range="bytes=0-999") for _ in range(20)]
        runs.append([(reply.status, len(reply.body)) for reply in replies])
    assert runs[0] == runs[1] != runs[2]
    assert {status for status, _ in runs[0]} == {206, 500}


def test_when_rules_apply(one: Image, serve: Callable[..., Registry]) -> None:
    registry = serve(
        on("any", fail(500), after_bytes=1000, times=1),
        on("any", fail(502), when=lambda request: request.range == "bytes=7-7"),
        on("any", fail(503), since=3600),
    )
    asked = ["0-998", "0-", "0-", "7-7", "0-0"]
    answered = [get(registry, blob_path(one), Range=f"bytes={span}").status for span in asked]
    assert answered == [206, 206, 500, 502, 206]


@pytest.mark.parametrize("silent", [False, True])
def test_outages(one: Image, serve: Callable[..., Registry], silent: bool) -> None:
    registry = serve(outages=[Outage(0.15, after_bytes=1000, silent=silent)])
    assert len(get(registry, blob_path(one), Range="bytes=0-999").body) == 1000
    began, failures = time.monotonic(), 0
    reply = None
    while reply is None:
        try:
            reply = get(registry, blob_path(one), Range="bytes=0-999")
        except OSError:
            failures += 1
            time.sleep(0.01)
    assert reply.body == one.layers[0].blob[:1000]
    assert 0.1 < time.monotonic() - began < 1
    assert (failures == 0) == silent


# ── the link and the accounts ──


def test_rate_and_latency(one: Image, serve: Callable[..., Registry]) -> None:
    registry = serve(rate=100_000, latency=0.05, connect_latency=0.05)
    began = time.monotonic()
    assert len(get(registry, blob_path(one), Range="bytes=0-9999").body) == 10_000
    assert 0.19 <= time.monotonic() - began < 0.6


def test_connections_are_kept(one: Image, serve: Callable[..., Registry]) -> None:
    registry = serve()
    connection = http.client.HTTPConnection(registry.host, timeout=5)
    for _ in range(3):
        connection.request("GET", blob_path(one), headers={"Range": "bytes=0-9"})
        assert len(connection.getresponse().read()) == 10
    connection.close()
    assert registry.accounts.connections == 1


def test_accounts_under_load(one: Image, serve: Callable[..., Registry]) -> None:
    """Many clients at once: nothing is lost, and nothing is seen before it is entered."""
    registry, layer = serve(), one.layers[0]

    def work(worker: int) -> None:
        for n in range(10):
            size = len(
                get(registry, blob_path(one), Range=f"bytes={worker * 100}-{worker * 100 + n}").body
            )
            assert size == n + 1

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.accounts.count("blob", status=206) == 80
    assert registry.accounts.blob_bytes == registry.accounts.body_bytes == 8 * 55
    assert registry.accounts.sent_twice(layer.digest) == registry.accounts.sent_twice() == 8 * 45
    assert [request.ordinal for request in registry.accounts.requests] == list(range(1, 81))


def test_a_client_that_leaves(one: Image) -> None:
    big = image(
        [
            chunked_layer(
                make_tar({"big": bytes(range(256)) * 40_000}), cut=every(1 << 20), level=-100
            )
        ]
    )
    with Registry({"v1": big}, rate=1_000_000) as registry:
        connection = http.client.HTTPConnection(registry.host, timeout=5)
        connection.request("GET", blob_path(big))
        connection.getresponse().read(10)
        connection.close()
    (request,) = registry.accounts.requests
    assert 10 <= request.body_bytes <= big.layers[0].size


def test_sums_of_spans() -> None:
    accounts = Accounts()
    request = accounts.open(Request(0, "registry", "GET", "/", "blob", "d", None, authorized=False))
    for size, at in ((10, 0), (5, 10), (3, None), (10, 40)):
        accounts.sent(request, size, at)
    accounts.unsent(request, 4, 46)
    assert accounts.bytes_by_blob == {"d": [(0, 15), (40, 46)]}
    assert (accounts.body_bytes, accounts.blob_bytes, accounts.sent_twice()) == (24, 21, 0)
    assert covered([(0, 10), (5, 20), (30, 31), (6, 7)]) == 21


@pytest.mark.parametrize(
    "header", [None, "", "bytes", "bytes=", "bytes=5-3", "bytes=a-b", "items=0-1"]
)
def test_ranges_that_are_none(header: str | None) -> None:
    assert parse_ranges(header, 100) is None


def test_it_reports_its_own_mistakes(one: Image) -> None:
    def mistake(*_: object) -> Any:
        raise ZeroDivisionError

    def ask() -> None:
        with (
            Registry({"v1": one}, faults=[on("any", mistake)]) as registry,
            pytest.raises(http.client.HTTPException),
        ):
            get(registry, "/v2/")

    with pytest.raises(ZeroDivisionError):
        ask()
