"""HTTP as we speak it: what goes out, what comes in, and what every way of breaking becomes."""

from __future__ import annotations

import gzip
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from socket import gaierror
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.servers.loopback import LoopbackServer
from tests.helpers.servers.wire import ConnectionCutError
from zchunked import __version__
from zchunked.errors import (
    AccessDeniedError,
    LocalError,
    PermanentError,
    TransferError,
    TransientError,
    ZPullError,
)
from zchunked.sources.http.client import Http
from zchunked.sources.http.connections.connection import _Reader
from zchunked.sources.http.connections.sessions import SessionPool
from zchunked.sources.http.connections.tls import Trust, trust_from
from zchunked.sources.http.errors.network_errors import (
    CannotConnectError,
    HostTimeoutError,
    NoAnswerError,
    NoTlsError,
    UnreachableError,
    causes_of,
    translated,
)
from zchunked.sources.http.response import HttpResponse
from zchunked.sources.traffic import Traffic

CERTS = Path(__file__).parent / "certs"


class Peer:
    """Sends whatever bytes it was told to, per path. Notes requests and connections."""

    def __init__(self, *, tls: bool = False) -> None:
        self.replies: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[BaseHTTPRequestHandler] = []
        self.connections = 0
        self.server = LoopbackServer(self._greet, self._serve, 0)
        port = self.server.server_port
        self.host = f"localhost:{port}" if tls else f"127.0.0.1:{port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    def _greet(self) -> None:
        self.connections += 1

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request)
        reply = self.replies.get(request.path, ok(b"hello"))
        if callable(reply):
            reply(request)
        else:
            request.wfile.write(reply)


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return (
        "\r\n".join(
            [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
        ).encode()
        + body
    )


def redirect(to: str, status: str = "307 Temporary Redirect") -> bytes:
    return ok(b"over there", f"Location: {to}", status=status)


def _noting(shown: list[str | None]) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers hello, and notes the credentials it was shown."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        shown.append(request.headers["Authorization"])
        request.wfile.write(ok(b"hello"))

    return reply


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.server.stop()


@pytest.fixture
def tls_peer() -> Iterator[Peer]:
    peer = Peer(tls=True)
    yield peer
    peer.server.stop()


@pytest.fixture
def http_(traffic: Traffic) -> Iterator[Http]:
    http = Http(traffic, stall_seconds=0.25, connect_seconds=2)
    yield http
    http.close()


def body(answer: HttpResponse) -> bytes:
    return b"".join(answer.pieces(1 << 30))


# ── what goes out ──


def test_the_head_of_a_request(peer: Peer, http_: Http) -> None:
    http_.get(f"{peer.url}/x?a=b", {"Range": "bytes=0-1"}).close()
    headers = {name.lower(): value for name, value in peer.asked[0].headers.items()}
    assert headers == {
        "host": peer.host,
        "accept-encoding": "identity",
        "user-agent": f"zpull/{__version__}",
        "range": "bytes=0-1",
    }


def test_a_netrc_file_is_never_read(
    peer: Peer, http_: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hush\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    peer.replies["/there"] = redirect("/here")
    body(http_.get(f"{peer.url}/there", {}))
    assert [request.headers["Authorization"] for request in peer.asked] == [None, None]


def test_user_info_in_a_url_is_no_credential(peer: Peer, http_: Http) -> None:
    peer.replies["/there"] = redirect(f"http://me:hush@{peer.host}/here")
    body(http_.get(f"{peer.url}/there", {}))
    body(http_.get(f"http://me:hush@{peer.host}/", {}))
    assert [request.headers["Authorization"] for request in peer.asked] == [None] * 3


def test_cookies_are_not_kept(peer: Peer, http_: Http) -> None:
    peer.replies["/"] = ok(b"", "Set-Cookie: a=b; Path=/")
    for _ in range(2):
        body(http_.get(f"{peer.url}/", {}))
    assert [request.headers["Cookie"] for request in peer.asked] == [None, None]


def test_a_proxy_from_the_environment(peer: Peer, traffic: Traffic) -> None:
    http = Http(traffic, environment={"http_proxy": peer.url}, connect_seconds=2)
    peer.replies["http://far.example/x"] = ok(b"by proxy")
    assert body(http.get("http://far.example/x", {})) == b"by proxy"
    assert body(http.get(f"{peer.url}/near", {})) == b"hello"  # loopback needs none
    peer.replies["http://far.example/x"] = ok(
        b"who are you?", status="407 Proxy Authentication Required"
    )
    denied = http.get("http://far.example/x", {}).status_error("it")
    assert isinstance(denied, AccessDeniedError)
    assert "the proxy refuses the credentials" in str(denied)
    http.close()


# ── redirects ──


def test_authorization_goes_to_the_first_origin_alone(peer: Peer, http_: Http) -> None:
    other = Peer()
    peer.replies["/a"] = redirect("/b", "302 Found")
    peer.replies["/b"] = redirect(f"{other.url}/c", "308 Permanent Redirect")
    other.replies["/c"] = redirect(f"{other.url}/d", "303 See Other")
    answer = http_.get(f"{peer.url}/a", {"Range": "bytes=1-2"}, authorization="Bearer hush")
    assert (body(answer), answer.url) == (b"hello", f"{other.url}/d")
    assert [request.headers["Authorization"] for request in peer.asked] == ["Bearer hush"] * 2
    assert [request.headers["Authorization"] for request in other.asked] == [None] * 2
    assert {request.headers["Range"] for request in peer.asked + other.asked} == {"bytes=1-2"}
    other.server.stop()


def test_authorization_does_not_come_back_when_a_redirect_leads_back(
    peer: Peer, http_: Http
) -> None:
    other = Peer()
    peer.replies["/a"] = redirect(f"{other.url}/b")
    other.replies["/b"] = redirect(f"{peer.url}/c")
    shown: list[str | None] = []
    peer.replies["/c"] = _noting(shown)
    assert body(http_.get(f"{peer.url}/a", {}, authorization="Bearer hush")) == b"hello"
    assert shown == [None]
    other.server.stop()


def test_ten_redirects_and_no_more(peer: Peer, http_: Http, traffic: Traffic) -> None:
    for hop in range(10):
        peer.replies[f"/{hop}"] = redirect(f"/{hop + 1}")
    assert body(http_.get(f"{peer.url}/0", {})) == b"hello"
    peer.replies["/10"] = redirect("/0")
    with pytest.raises(TransferError, match="more than 10 redirects") as caught:
        http_.get(f"{peer.url}/0", {})
    assert not isinstance(caught.value, TransientError)
    assert traffic.fetched == 10 * 10 + 5 + 11 * 10
    assert peer.connections == 1


def test_a_redirect_to_another_scheme_is_not_followed(peer: Peer, http_: Http) -> None:
    peer.replies["/a"] = redirect("file:///etc/passwd")
    with pytest.raises(TransferError, match="expected a URL of http"):
        http_.get(f"{peer.url}/a", {})


def test_the_body_of_a_redirect_is_bounded(peer: Peer, http_: Http, traffic: Traffic) -> None:
    peer.replies["/a"] = ok(b"x" * 3_000_000, "Location: /b", status="302 Found")
    assert body(http_.get(f"{peer.url}/a", {})) == b"hello"
    assert traffic.fetched <= (64 << 10) + 5


# ── bodies ──


def test_bodies_are_raw_and_counted(peer: Peer, http_: Http, traffic: Traffic) -> None:
    packed = gzip.compress(b"hello" * 100)
    peer.replies["/"] = ok(packed, "Content-Encoding: gzip")
    assert body(http_.get(f"{peer.url}/", {})) == packed
    assert (traffic.fetched, traffic.requests) == (len(packed), 1)


def test_a_connection_stays_open_across_requests_and_errors(peer: Peer, http_: Http) -> None:
    peer.replies["/gone"] = ok(b"no", status="404 Not Found")
    peer.replies["/none"] = ok(b"", status="200 OK")
    peer.replies["/chunked"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    for _ in range(2):
        assert body(http_.get(f"{peer.url}/", {})) == b"hello"
        assert list(http_.get(f"{peer.url}/", {}).pieces(5)) == [b"hello"]
        assert b"".join(http_.get(f"{peer.url}/chunked", {}).pieces(3)) == b"abc"
        assert str(http_.get(f"{peer.url}/gone", {}).status_error("it")).startswith("it: 404")
        assert body(http_.get(f"{peer.url}/none", {})) == b""
    assert peer.connections == 1


def test_more_than_was_wanted_is_left_unread(peer: Peer, http_: Http, traffic: Traffic) -> None:
    peer.replies["/"] = ok(b"x" * 5_000_000)
    assert len(b"".join(http_.get(f"{peer.url}/", {}).pieces(1000))) == 1000
    assert traffic.fetched == 1000
    assert body(http_.get(f"{peer.url}/other", {})) == b"hello"
    assert peer.connections == 2


def test_an_abandoned_body_closes_its_connection(peer: Peer, http_: Http) -> None:
    peer.replies["/"] = ok(b"x" * 5_000_000)
    pieces = http_.get(f"{peer.url}/", {}).pieces(1 << 30)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert body(http_.get(f"{peer.url}/other", {})) == b"hello"


def test_pieces_come_as_they_arrive(peer: Peer, http_: Http) -> None:
    has_come = threading.Event()

    def slowly(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
        assert has_come.wait(10)
        request.wfile.write(b"cdef")

    peer.replies["/"] = slowly
    pieces = http_.get(f"{peer.url}/", {}).pieces(6)
    assert next(pieces) == b"ab"
    has_come.set()
    assert b"".join(pieces) == b"cdef"


def _cut(head: bytes, *, hard: bool = False) -> Callable[[BaseHTTPRequestHandler], None]:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(head)
        raise ConnectionCutError(hard=hard)

    return reply


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        (HEAD + b"x" * 40, 40),
        (HEAD, 0),
        (CHUNKED + b"5\r\nabcde\r\n", 5),
        (CHUNKED + b"5\r\nab", 2),
        (CHUNKED + b"5\r\nabcde\r\nnonsense\r\n", 5),
    ],
)
@pytest.mark.parametrize("hard", [False, True])
def test_a_body_that_breaks_off(
    peer: Peer, http_: Http, sent: bytes, came: int, hard: bool
) -> None:
    peer.replies["/"] = _cut(sent, hard=hard)
    answer = http_.get(f"{peer.url}/", {})
    got = b""
    pieces = answer.pieces(1000)
    with pytest.raises(TransientError) as caught:  # noqa: PT012 - what came before it counts
        for piece in pieces:
            got += piece
    assert len(got) == came
    assert not isinstance(caught.value, NoAnswerError)
    assert f"after {came} body bytes" in str(caught.value)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Le"])
@pytest.mark.parametrize("hard", [False, True])
def test_an_answer_that_is_cut_off(
    peer: Peer, http_: Http, sent: bytes, hard: bool, traffic: Traffic
) -> None:
    peer.replies["/"] = _cut(sent, hard=hard)
    with pytest.raises(TransientError) as caught:
        body(http_.get(f"{peer.url}/", {}))
    assert not isinstance(caught.value, UnreachableError)
    assert traffic.requests == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nno header\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_an_answer_that_is_none_is_final(
    peer: Peer, http_: Http, sent: bytes, traffic: Traffic
) -> None:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(sent)
        request.rfile.read(1)

    peer.replies["/"] = reply
    with pytest.raises(PermanentError, match="malformed"):
        http_.get(f"{peer.url}/", {})
    assert traffic.requests == 1


def _for_ever(first: bytes, again: bytes, pause: float) -> Callable[[BaseHTTPRequestHandler], None]:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(first)
        with suppress(OSError):
            for _ in range(100_000):
                request.wfile.write(again)
                request.wfile.flush()
                if pause:
                    time.sleep(pause)
        raise ConnectionCutError(hard=True)

    return reply


@pytest.mark.parametrize("pause", [0, 0.05])
@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", b"X: y\r\n"),
    ],
    ids=["dribbled line", "endless head", "endless 100", "dribbled chunk size", "endless trailer"],
)
def test_no_answer_keeps_us_for_ever(
    peer: Peer, http_: Http, first: bytes, again: bytes, pause: float
) -> None:
    peer.replies["/"] = _for_ever(first, again, pause)
    began = time.monotonic()
    with pytest.raises(TransferError):
        body(http_.get(f"{peer.url}/", {}))
    assert time.monotonic() - began < 3


def test_a_process_that_got_no_cpu_looks_again_before_it_calls_the_network_dead() -> None:
    """As if the wait had ended in a time-out although the bytes were there."""
    ours, theirs = socket.socketpair()
    theirs.sendall(b"here")

    class Starved(socket.socket):
        tries = 0

        def recv_into(self, *args: Any, **kwargs: Any) -> int:
            Starved.tries += 1
            if Starved.tries == 1:
                raise TimeoutError
            return super().recv_into(*args, **kwargs)

    starved = Starved(fileno=ours.detach())
    starved.settimeout(1)
    with starved, theirs, starved.makefile("rb", buffering=0) as raw:
        reader = _Reader(starved, raw)
        assert reader.read(4) == b"here"
        assert Starved.tries == 2


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"x" * 10])
def test_silence_is_a_stall(peer: Peer, http_: Http, sent: bytes) -> None:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(sent)
        request.rfile.read(1)  # until the client gives up

    peer.replies["/"] = reply
    with pytest.raises(TransientError, match=r"no byte for 0\.25 s"):
        body(http_.get(f"{peer.url}/", {}))


def test_signatures_are_not_in_messages_or_causes(peer: Peer, http_: Http) -> None:
    peer.replies["/x?X-Amz-Signature=0123456789abcdef"] = ok(
        b"bad 0123456789abcdef", status="400 Bad Request"
    )
    url = f"{peer.url}/x?X-Amz-Signature=0123456789abcdef"
    told = [str(http_.get(url, {}).status_error("it"))]
    peer.server.stop()
    with pytest.raises(TransferError) as caught:
        http_.get(url, {})
    error: BaseException | None = caught.value
    while error is not None:
        told.append(str(error))
        error = error.__cause__
    assert len(told) >= 3
    assert not [text for text in told if "0123456789" in text]


# ── TLS ──


def _get(peer: Peer, trust: Trust, host: str = "localhost") -> bytes:
    http = Http(
        Traffic(time.monotonic), sessions=SessionPool(trust), connect_seconds=2, stall_seconds=2
    )
    try:
        return body(http.get(peer.url.replace("localhost", host), {}))
    finally:
        http.close()


@pytest.fixture
def cert_dir(tmp_path: Path) -> Path:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.crt").write_bytes((CERTS / "ca.crt").read_bytes())
    return tmp_path / "certs"


def test_an_unknown_ca_is_final_and_says_what_to_do(tls_peer: Peer) -> None:
    with pytest.raises(
        TransferError, match=r"not trusted .*--cert-dir.*--tls-verify=false"
    ) as caught:
        _get(tls_peer, Trust(certs_d=()))
    assert not isinstance(caught.value, TransientError)


def test_ways_to_trust(tls_peer: Peer, cert_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _get(tls_peer, Trust(cert_dir=cert_dir)) == b"hello"
    assert _get(tls_peer, Trust(verify=False), "127.0.0.1") == b"hello"
    assert _get(tls_peer, trust_from({"REQUESTS_CA_BUNDLE": str(cert_dir / "ca.crt")})) == b"hello"
    host = cert_dir.parent / "containers" / "certs.d" / tls_peer.host
    host.parent.mkdir(parents=True)
    host.symlink_to(cert_dir)
    assert _get(tls_peer, trust_from({"XDG_CONFIG_HOME": str(cert_dir.parent)})) == b"hello"
    monkeypatch.setenv("SSL_CERT_FILE", str(cert_dir / "ca.crt"))
    assert _get(tls_peer, Trust(certs_d=())) == b"hello"


def test_what_vouches_for_the_registry_vouches_for_hosts_it_sends_us_to(
    tls_peer: Peer, cert_dir: Path, tmp_path: Path
) -> None:
    """A token server often has a certificate of the same CA, and no folder of its own.

    Our own certificate stays.
    """
    folder = tmp_path / "certs.d" / "registry.example:5000"
    folder.parent.mkdir()
    cert_dir.rename(folder)
    (folder / "client.cert").write_text("for the registry alone")
    (folder / "client.key").write_text("so nobody else may see it")
    roots = (tmp_path / "certs.d",)
    assert _get(tls_peer, Trust(certs_d=roots, registry_host="registry.example:5000")) == b"hello"
    with pytest.raises(TransferError, match="not trusted"):
        _get(tls_peer, Trust(certs_d=roots, registry_host="other.example"))
    (tmp_path / "certs.d" / tls_peer.host).mkdir()
    with pytest.raises(TransferError, match="not trusted"):
        _get(tls_peer, Trust(certs_d=roots, registry_host="registry.example:5000"))


@pytest.mark.parametrize(
    ("name", "says"), [("a.cert", r"lacks its key, a\.key"), ("a.key", r"lacks its certificate")]
)
def test_half_of_a_pair_is_named(tls_peer: Peer, cert_dir: Path, name: str, says: str) -> None:
    (cert_dir / name).write_text("")
    with pytest.raises(LocalError, match=says):
        _get(tls_peer, Trust(cert_dir=cert_dir))


def test_a_certificate_for_another_name(tls_peer: Peer, cert_dir: Path) -> None:
    with pytest.raises(TransferError, match="not trusted"):
        _get(tls_peer, Trust(cert_dir=cert_dir), "127.0.0.1")


def test_certificates_that_cannot_be_read(tls_peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nonsense")
    with pytest.raises(LocalError, match="cannot read the certificates"):
        _get(tls_peer, Trust(cert_dir=tmp_path))
    with pytest.raises(LocalError):
        _get(tls_peer, Trust(cert_dir=tmp_path / "missing"))


def test_tls_keeps_its_connection_and_never_leaves_it(tls_peer: Peer, cert_dir: Path) -> None:
    http = Http(Traffic(time.monotonic), sessions=SessionPool(Trust(cert_dir=cert_dir)))
    for _ in range(3):
        assert body(http.get(tls_peer.url, {})) == b"hello"
    assert tls_peer.connections == 1
    tls_peer.replies["/a"] = redirect("http://127.0.0.1:1/b")
    with pytest.raises(TransferError, match="away from TLS"):
        http.get(f"{tls_peer.url}/a", {})
    http.close()


def test_without_checks_a_redirect_may_leave_tls_but_takes_no_credentials_along(
    tls_peer: Peer, peer: Peer
) -> None:
    http = Http(Traffic(time.monotonic), sessions=SessionPool(Trust(verify=False)))
    tls_peer.replies["/a"] = redirect(f"{peer.url}/b")
    peer.replies["/b"] = redirect(f"{tls_peer.url}/c")
    shown: list[str | None] = []
    tls_peer.replies["/c"] = _noting(shown)
    answer = http.get(f"{tls_peer.url}/a", {}, authorization="Bearer hush")
    assert (body(answer), answer.url) == (b"hello", f"{tls_peer.url}/c")
    assert shown == [None]
    assert [request.headers["Authorization"] for request in peer.asked] == [None]
    http.close()


def test_plain_http_where_tls_was_expected(peer: Peer, http_: Http, traffic: Traffic) -> None:
    with pytest.raises(NoTlsError, match="speaks no TLS"):
        http_.get(peer.url.replace("http:", "https:"), {})
    assert traffic.requests == 0


# ── exceptions, whatever hangs on whatever ──


def _chain(*errors: BaseException) -> BaseException:
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("error", "received", "kind"),
    [
        (gaierror(-2, "Name or service not known"), None, CannotConnectError),
        (gaierror(-3, "Temporary failure in name resolution"), None, UnreachableError),
        (UnicodeError("label too long"), None, CannotConnectError),
        (ConnectionRefusedError(111, "refused"), None, UnreachableError),
        (ConnectionResetError(104, "reset"), None, NoAnswerError),
        (ConnectionResetError(104, "reset"), 10, TransientError),
        (http.client.RemoteDisconnected("x"), None, NoAnswerError),
        (http.client.IncompleteRead(b"", 5), 10, TransientError),
        (TimeoutError(), None, HostTimeoutError),
        (TimeoutError(), 10, HostTimeoutError),
        (ssl.SSLCertVerificationError(1, "x"), None, CannotConnectError),
        (ssl.SSLEOFError(8, "EOF"), None, UnreachableError),
        (ssl.SSLError(1, "bad mac"), 10, TransientError),
        (OSError(101, "Network is unreachable"), None, NoAnswerError),
        (ValueError("odd"), None, NoAnswerError),
    ],
)
def test_every_break_has_its_class(
    error: BaseException, received: int | None, kind: type[TransferError]
) -> None:
    causes = causes_of(_chain(RuntimeError("around it"), error))
    ours = translated(
        causes, "h:1", seconds=9, received=received, is_connecting=False, is_proxy=False
    )
    assert type(ours) is kind
    assert str(ours).startswith("h:1: ")
    assert ours.exit_code == 5


@pytest.mark.parametrize(
    ("code", "word"), [(9, "clock"), (10, "clock"), (18, "--cert-dir"), (62, "--cert-dir")]
)
def test_a_certificate_out_of_its_time_may_be_the_fault_of_our_clock(code: int, word: str) -> None:
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_code = code
    ours = translated([error], "h:1", seconds=9, received=None, is_connecting=False, is_proxy=False)
    assert word in str(ours)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (407, AccessDeniedError),
        (403, CannotConnectError),
        (502, UnreachableError),
        (503, UnreachableError),
    ],
)
def test_what_a_proxy_says(status: int, kind: type[ZPullError]) -> None:
    causes = causes_of(
        _chain(RuntimeError("around it"), OSError(f"Tunnel connection failed: {status} Because"))
    )
    assert (
        type(translated(causes, "h", seconds=9, received=None, is_connecting=False, is_proxy=True))
        is kind
    )


@given(
    st.lists(
        st.sampled_from(
            [OSError, ValueError, TimeoutError, ssl.SSLError, http.client.HTTPException]
        ),
        min_size=1,
    )
)
def test_any_chain_of_causes_comes_to_an_end(kinds: list[type[Exception]]) -> None:
    errors = [kind("text") for kind in kinds]
    errors[-1].__context__ = errors[0]  # a circle
    assert len(causes_of(_chain(*errors))) == len(errors)


# ── a pull that has ended ──


@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
def test_after_the_end_what_was_received_is_handed_over_and_nothing_is_waited_for(
    is_tls: bool, peer: Peer, tls_peer: Peer, traffic: Traffic
) -> None:
    sent, may_end = threading.Event(), threading.Event()

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(ok(bytes(400_000))[:-100_000])
        sent.set()
        may_end.wait(20)

    one = tls_peer if is_tls else peer
    one.replies["/long"] = reply
    trust = Trust(verify=False)
    http = Http(traffic, sessions=SessionPool(trust), stall_seconds=30)
    answer = http.get(f"{one.url}/long", {})
    assert sent.wait(10)
    traffic.end_when(lambda: True)
    began = time.monotonic()
    came: list[bytes] = []
    try:
        with pytest.raises(TransientError):
            came.extend(answer.pieces(1 << 30))
        assert time.monotonic() - began < 5
        assert len(b"".join(came)) == traffic.fetched == 300_000
        with pytest.raises(TransientError, match="the pull has ended"):
            http.get(f"{one.url}/more", {})
        assert len(one.asked) == 1
    finally:
        may_end.set()
        http.close()
