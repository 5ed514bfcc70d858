"""A client per attack: each is bounded, and the others are served meanwhile."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.harness.rough import files
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start
from zchunked.serve import server
from zchunked.serve.server import Server

IMAGE = image([gzip_layer(make_tar(files(1, 10, 9000)))])
THREADS = 3


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@contextmanager
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server of a few threads that waits for a request for half a second; its port."""
    monkeypatch.setattr(server, "_REQUEST_SECONDS", 0.5)
    made = Server(app, ("127.0.0.1", 0), certificate=None, log=lambda _: None, threads=THREADS)
    _, port = made.open()
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        made.stop()
        thread.join(10)


def ask(port: int, timeout: float = 10) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


def said(port: int, sent: bytes) -> bytes:
    """What comes back until the server closes, or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        got = b""
        with suppress(OSError):
            client.sendall(sent)
            client.settimeout(1)
            while piece := client.recv(65536):
                got += piece
        return got


def test_requests_that_come_byte_by_byte_do_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_over = threading.Event()

    def drip(client: socket.socket) -> None:
        with suppress(OSError):
            client.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
            while not is_over.wait(0.1):
                client.sendall(b"x")

    with small(monkeypatch) as port, ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            for _ in range(2 * THREADS)
        ]
        threads = [threading.Thread(target=drip, args=(client,), daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        try:
            assert ask(port) == b"ok"
        finally:
            is_over.set()
            for thread in threads:
                thread.join(5)


def test_connections_that_say_nothing_do_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with small(monkeypatch) as port, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        assert ask(port) == b"ok"


def test_what_has_no_end_is_refused(start: Start) -> None:
    """Headers, a URL, a list of ranges, a method nobody knows; and the next client is served."""
    with Registry({"t": IMAGE}) as registry:
        served = start(registry)
        blob = f"/v2/local/demo/blobs/{IMAGE.layers[0].digest}"
        get = f"GET {blob} HTTP/1.1\r\nHost: x\r\n".encode()
        ranges = ",".join(f"{at}-{at}" for at in range(0, 40_000, 2)).encode()
        for sent, statuses in (
            (get + b"X: " + b"y" * 100_000 + b"\r\n\r\n", (b"413", b"431", b"400")),
            (
                get + b"".join(b"X%d: y\r\n" % number for number in range(20_000)) + b"\r\n",
                (b"413", b"431", b"400"),
            ),
            (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n", (b"414", b"413", b"400")),
            (get + b"Range: bytes=" + ranges + b"\r\n\r\n", (b"413", b"431", b"400")),
            (b"BREW / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", (b"405", b"501", b"400")),
            (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", (b"400",)),
            (b"GET / HTTP/9.9\r\nHost: x\r\nConnection: close\r\n\r\n", (b"505", b"400")),
            (
                b"POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
                (b"405", b"413"),
            ),
        ):
            got = said(served.port, sent)
            assert not got or got.split(b" ", 2)[1] in statuses, (sent[:60], got[:200])
            assert served.ask("/healthz").body == b"ok\n"


def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    with Registry({"t": IMAGE}) as registry:
        served = start(registry)
        one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        got = said(served.port, one * 20 + last)
        assert got.count(b"HTTP/1.1 200") == 21
        assert got.endswith(b"{}")


def test_a_client_that_takes_nothing_holds_up_nobody(start: Start) -> None:
    with Registry({"t": IMAGE}) as registry, ExitStack() as stack:
        served = start(registry)
        served.ask("/v2/local/demo/manifests/t")
        blob = f"/v2/local/demo/blobs/{IMAGE.layers[0].digest}"
        served.ask(blob)
        for _ in range(20):
            client = stack.enter_context(
                socket.create_connection(("127.0.0.1", served.port), timeout=5)
            )
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(f"GET {blob} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert served.ask(blob).body == IMAGE.layers[0].blob
