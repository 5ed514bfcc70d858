"""Names are looked up within a bound, and every address of one is tried."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.helpers.servers.loopback import LoopbackServer
from zchunked.errors import PermanentError, TransientError
from zchunked.sources.http.client import Http
from zchunked.sources.http.connections.host_lookup import ResolverTimeoutError, addresses_of
from zchunked.sources.http.locations.redirect_guard import refuse_inward
from zchunked.sources.traffic import Traffic

SYSTEM = socket.getaddrinfo


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No name server ever answers. Addresses need none."""
    is_over = threading.Event()

    def look(host: str, *args: Any, **options: Any) -> Any:
        if not host[:1].isdigit():
            is_over.wait(60)
        return SYSTEM(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    yield
    is_over.set()


def answers(monkeypatch: pytest.MonkeyPatch, **known: list[str]) -> None:
    """A resolver that knows these names alone."""

    def look(host: str, port: int | None, *args: Any, **options: Any) -> Any:
        if host[:1].isdigit():
            return SYSTEM(host, port, *args, **options)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            found for address in known[host] for found in SYSTEM(address, port, *args, **options)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look)


@pytest.fixture
def port() -> Iterator[int]:
    """Of a host that answers every request, on 127.0.0.1 alone."""

    def serve(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    server = LoopbackServer(lambda: None, serve, 0)
    with server:
        yield server.server_port


@pytest.mark.usefixtures("mute")
def test_a_name_server_that_never_answers_is_waited_for_in_vain_but_not_for_long() -> None:
    with pytest.raises(ResolverTimeoutError):
        addresses_of("registry.test", 0.05)
    assert addresses_of("127.0.0.1", 0.05) == ["127.0.0.1"]
    assert addresses_of("::1", 0.05) == ["::1"]


@pytest.mark.usefixtures("mute")
def test_a_mute_name_server_is_a_passing_failure(traffic: Traffic) -> None:
    http = Http(traffic, connect_seconds=0.05)
    with pytest.raises(
        TransientError, match=r"cannot be resolved \(the name server gives no answer for 0\.05 s"
    ):
        http.get("http://registry.test/v2/", {})
    assert traffic.requests == 0
    http.close()


def test_names_are_known_where_no_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    answers(monkeypatch, **{"registry.test": ["192.0.2.1"]})
    monkeypatch.setattr(threading.Thread, "start", start)
    assert addresses_of("registry.test", 0.05) == ["192.0.2.1"]
    with pytest.raises(socket.gaierror):
        addresses_of("nobody.test", 0.05)


def test_every_address_is_tried(
    monkeypatch: pytest.MonkeyPatch, traffic: Traffic, port: int
) -> None:
    answers(monkeypatch, **{"registry.test": ["127.0.0.9", "127.0.0.1"]})
    http = Http(traffic)
    answer = http.get(f"http://registry.test:{port}/", {})
    assert (answer.read(9, "it"), answer.host) == (b"hello", f"registry.test:{port}")
    http.close()


@pytest.mark.parametrize("name", ["nobody.test", "x" * 70 + ".test", "a..b"])
def test_a_name_that_does_not_exist_is_final(
    monkeypatch: pytest.MonkeyPatch, traffic: Traffic, name: str
) -> None:
    answers(monkeypatch)
    http = Http(traffic)
    with pytest.raises(PermanentError):
        http.get(f"http://{name}/", {})
    http.close()


def test_a_redirect_is_judged_by_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(
        monkeypatch, **{"registry.test": ["192.0.2.1"], "storage.test": ["192.0.2.2", "127.0.0.1"]}
    )
    with pytest.raises(PermanentError, match=r"which is 127\.0\.0\.1"):
        refuse_inward("https://registry.test/", "https://storage.test/")
