"""A client per attack: each is bounded, and the others are served meanwhile."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.harness.rough import files
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start, until
from zchunked.serve import server, slow_clients
from zchunked.serve.server import Server
from zchunked.serve.slow_clients import Slack

IMAGE = image([gzip_layer(make_tar(files(1, 10, 9000)))])
THREADS = 3


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@contextmanager
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server of a few threads that waits for a request for half a second; its port."""
    monkeypatch.setattr(slow_clients, "_REQUEST_SECONDS", 0.5)
    with serving(app) as port:
        yield port


@contextmanager
def serving(
    what: Callable[..., Iterable[bytes]],
    log: Callable[[str], None] = lambda _: None,
    threads: int = THREADS,
) -> Iterator[int]:
    """A server of a few threads; its port."""
    made = Server(what, ("127.0.0.1", 0), certificate=None, log=log, threads=threads)
    _, port = made.open()
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        made.stop()
        thread.join(10)


def test_the_library_never_runs_where_signals_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt within its queue may lose a wake-up, and its end would wait for ever."""
    seen: list[threading.Thread] = []
    made = Server(app, ("127.0.0.1", 0), certificate=None, log=lambda _: None, threads=1)
    made.open()
    monkeypatch.setattr(made._server, "serve", lambda: seen.append(threading.current_thread()))
    made.serve()
    assert seen
    assert threading.main_thread() not in seen


def test_a_thread_that_never_ends_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()
    made = Server(app, ("127.0.0.1", 0), certificate=None, log=lambda _: None, threads=1)
    made.open()
    monkeypatch.setattr(server, "_FAREWELL_SECONDS", 0)
    monkeypatch.setattr(server, "_LEAST_SECONDS", 0)
    monkeypatch.setattr(made._server, "serve", lambda: None)
    monkeypatch.setattr(made._server, "stop", hung.wait)
    made.serve()
    hung.set()


def connect(port: int) -> socket.socket:
    """A client with as little room for an answer as there can be."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect(("127.0.0.1", port))
    return client


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


def large(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """An answer of 16 MiB, which no socket's buffers hold; `/` has a short one."""
    if _environ["PATH_INFO"] == "/":
        return app(_environ, start_response)
    start_response("200 OK", [("Content-Length", str(64 << 18))])
    return [bytes(1 << 18)] * 64


@pytest.mark.parametrize("is_crowded", [True, False])
def test_clients_that_take_a_trickle_do_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch, *, is_crowded: bool
) -> None:
    """200 of them, faster than would stand out if nobody else came; and one, who is alone."""
    monkeypatch.setattr(slow_clients, "_LOOK_SECONDS", 0.1)
    rate = slow_clients._LEAST_RATE * 4 if is_crowded else slow_clients._LEAST_RATE / 4
    monkeypatch.setattr(slow_clients, "_CROWDED_SECONDS" if is_crowded else "STALL_SECONDS", 0.3)
    is_over, lost = threading.Event(), []
    said: list[str] = []

    def trickle(client: socket.socket) -> None:
        try:
            client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            while not is_over.wait(0.05) and client.recv(int(rate * 0.05)):
                pass
        except OSError as error:
            lost.append(error)

    with serving(large, said.append, threads=40) as port, ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(200 if is_crowded else 1)]
        threads = [
            threading.Thread(target=trickle, args=(client,), daemon=True) for client in clients
        ]
        for thread in threads:
            thread.start()
        try:
            if is_crowded:
                assert ask(port, timeout=30) == b"ok"
            else:
                until(lambda: lost)
        finally:
            is_over.set()
            for thread in threads:
                thread.join(5)
    assert lost
    assert "too slowly" in said[0]


def test_a_slow_client_that_takes_enough_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the kernel takes nothing more from the server for longer than a client may stall."""
    monkeypatch.setattr(slow_clients, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(slow_clients, "STALL_SECONDS", 0.4)
    with serving(large) as port, connect(port) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = 0
        for _ in range(12):
            got += len(client.recv(16 << 10))
            time.sleep(0.1)
        while piece := client.recv(1 << 20):
            got += len(piece)
    assert got > 64 << 18


@pytest.mark.parametrize(
    ("looks", "goes_on"),
    [
        ([(1, 0)] * 29, True),
        ([(1, 0)] * 30, False),
        ([(1, 8 << 10)] * 1000, True),
        ([(1, 7 << 10)] * 250, False),
        ([(1, 1 << 30), *[(1, 0)] * 30], False),
        ([(20, 0), (0, 8 << 20), (20, 0)], True),
    ],
)
def test_being_fast_does_not_excuse_being_slow(
    looks: list[tuple[float, int]], *, goes_on: bool
) -> None:
    slack = Slack()
    answers = [slack.pass_by(seconds, taken, is_crowded=False) for seconds, taken in looks]
    assert answers[-1] is goes_on


def test_in_a_crowd_more_is_asked_of_everybody() -> None:
    slack = Slack()
    assert slack.pass_by(1, 0, is_crowded=False)
    assert not [slack.pass_by(1, 60 << 10, is_crowded=True) for _ in range(60)][-1]
    slack = Slack()
    assert [slack.pass_by(1, 70 << 10, is_crowded=True) for _ in range(60)][-1]
