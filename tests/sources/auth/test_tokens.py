"""The way in: the challenge that is taken, the token requested, who is shown secrets."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec import structs

from tests.helpers.servers.loopback import LoopbackServer
from zchunked.errors import (
    AccessDeniedError,
    PermanentError,
    TransferError,
    TransientError,
    ZPullError,
)
from zchunked.events import Event, Noted
from zchunked.sources.auth.credentials import Credentials
from zchunked.sources.auth.helpers import HelperError
from zchunked.sources.auth.tokens import Auth, ProtectedRepository
from zchunked.sources.http.client import Http
from zchunked.sources.traffic import Traffic

PERSON = Credentials("me", "s3cret!word")
Reply = tuple[int, dict[str, str], bytes]


class Desk:
    """A registry that always says 401 with some challenge, and a token endpoint.

    Notes all it was asked.
    """

    def __init__(self) -> None:
        self.challenge = 'Bearer realm="{url}/token",service="svc",scope="repository:a/b:pull"'
        self.token: Callable[[BaseHTTPRequestHandler], Reply] = lambda request: (
            200,
            {},
            b'{"token":"t0"}',
        )
        self.asked: list[BaseHTTPRequestHandler] = []
        self.server = LoopbackServer(lambda: None, self._serve, 0)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        if request.path.startswith("/v2/"):
            reply: Reply = (
                401,
                {"WWW-Authenticate": self.challenge.replace("{url}", self.url)},
                b"who are you?",
            )
        else:
            self.asked.append(request)
            reply = self.token(request)
        status, headers, body = reply
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.asked[-1].path).query)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.server.stop()
    assert not desk.server.errors


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def http() -> Iterator[Http]:
    http = Http(Traffic(time.monotonic), stall_seconds=2)
    yield http
    http.close()


def refused(
    desk: Desk, http: Http, credentials: Credentials | None, clock: Clock | None = None
) -> Auth:
    """An Auth that has heard the desk's challenge once."""
    auth = Auth(
        http, ProtectedRepository("r.example", "a/b"), lambda: credentials, clock=clock or Clock()
    )
    grant = auth.grant()
    assert grant.header is None
    answer = http.get(f"{desk.url}/v2/", {})
    assert auth.asks(answer)
    auth.learn(answer, grant)
    return auth


def test_an_anonymous_token(desk: Desk, http: Http) -> None:
    grant = refused(desk, http, None).grant()
    assert (grant.header, grant.is_fresh) == ("Bearer t0", True)
    assert desk.query() == {"service": ["svc"], "scope": ["repository:a/b:pull"]}
    assert "Authorization" not in desk.asked[0].headers


def test_a_token_for_a_person(desk: Desk, http: Http) -> None:
    desk.token = lambda request: (
        200,
        {},
        b'{"access_token":"t1","expires_in":300,"issued_at":"x"}',
    )
    assert refused(desk, http, PERSON).grant().header == "Bearer t1"
    assert desk.query()["account"] == ["me"]
    assert (
        desk.asked[0].headers["Authorization"]
        == "Basic " + base64.b64encode(b"me:s3cret!word").decode()
    )


def test_a_challenge_without_a_scope_is_for_our_repository(desk: Desk, http: Http) -> None:
    desk.challenge = 'Negotiate, Bearer realm="{url}/token?a=b"'
    refused(desk, http, None).grant()
    assert desk.query() == {"a": ["b"], "scope": ["repository:a/b:pull"]}


def test_an_identity_token_is_traded_by_post(desk: Desk, http: Http, traffic: Traffic) -> None:
    forms: list[str] = []

    def token(request: BaseHTTPRequestHandler) -> Reply:
        forms.append(
            f"{request.command} {request.headers['Content-Type']} "
            f"{request.headers['Content-Length']}"
        )
        return 200, {}, b'{"access_token":"t2"}'

    desk.token = token
    assert (
        refused(desk, http, Credentials(identity_token="identity-hush")).grant().header
        == "Bearer t2"
    )
    assert forms[0].startswith("POST application/x-www-form-urlencoded")
    assert "identity-hush" not in desk.asked[0].path


def test_a_registry_token_is_shown_as_it_is(desk: Desk, http: Http) -> None:
    auth = refused(desk, http, Credentials(registry_token="mine"))
    grant = auth.grant()
    assert grant.header == "Bearer mine"
    assert not desk.asked
    with pytest.raises(AccessDeniedError):
        auth.learn(http.get(f"{desk.url}/v2/", {}), grant)


@pytest.mark.parametrize("said", ['"100"', "100", "100.0", '"soon"', "null", "-1", '"inf"'])
def test_how_long_a_token_lives_in_any_spelling(desk: Desk, http: Http, said: str) -> None:
    clock = Clock()
    desk.token = lambda request: (200, {}, b'{"token":"t0","expires_in":%s}' % said.encode())
    auth = refused(desk, http, None, clock)
    auth.grant()
    clock.now += 94 if "100" in said else 54
    assert not auth.grant().is_fresh
    clock.now += 3
    assert auth.grant().is_fresh


def test_a_packed_token_is_unpacked(desk: Desk, http: Http) -> None:
    desk.token = lambda request: (
        200,
        {"Content-Encoding": "gzip"},
        gzip.compress(b'{"token":"t9"}'),
    )
    assert refused(desk, http, None).grant().header == "Bearer t9"


def test_junk_in_place_of_a_token_is_asked_for_a_few_times_only(desk: Desk, http: Http) -> None:
    desk.token = lambda request: (200, {}, b"hello")
    with pytest.raises(TransientError) as caught:
        refused(desk, http, None).grant()
    assert caught.value.most_tries == 3


def test_a_helper_that_fails_is_warned_of_and_named_when_the_registry_refuses(
    desk: Desk, http: Http
) -> None:
    def look_up() -> Credentials:
        raise HelperError("docker-credential-x is not on the PATH")

    told: list[Event] = []
    auth = Auth(http, ProtectedRepository("r.example", "a/b"), look_up, clock=Clock())
    auth.emit = told.append
    grant = auth.grant()
    auth.learn(http.get(f"{desk.url}/v2/", {}), grant)
    fresh = auth.grant()
    assert fresh.header == "Bearer t0"  # anonymously
    with pytest.raises(AccessDeniedError, match="could not be looked up: docker-credential-x"):
        auth.learn(http.get(f"{desk.url}/v2/", {}), fresh)
    assert [type(one) for one in told] == [Noted]
    assert "warning: docker-credential-x" in str(told[0])


def test_a_token_is_kept_until_it_expires(desk: Desk, http: Http) -> None:
    clock = Clock()
    tokens = iter(range(10))
    desk.token = lambda request: (
        200,
        {},
        json.dumps({"token": f"t{next(tokens)}", "expires_in": 100}).encode(),
    )
    auth = refused(desk, http, None, clock)
    assert [auth.grant().header for _ in range(3)] == ["Bearer t0"] * 3
    clock.now += 94
    assert auth.grant().header == "Bearer t0"
    clock.now += 2  # within the last seconds: a request under way might come too late
    assert auth.grant().header == "Bearer t1"
    assert len(desk.asked) == 2


def test_a_401_on_an_old_token_brings_a_new_one_and_on_a_fresh_one_is_final(
    desk: Desk, http: Http
) -> None:
    tokens = iter(range(10))
    desk.token = lambda request: (200, {}, json.dumps({"token": f"t{next(tokens)}"}).encode())
    auth = refused(desk, http, None)
    auth.grant()
    old = auth.grant()
    assert (old.header, old.is_fresh) == ("Bearer t0", False)
    auth.learn(http.get(f"{desk.url}/v2/", {}), old)
    auth.learn(http.get(f"{desk.url}/v2/", {}), old)  # another thread, with the same old token
    fresh = auth.grant()
    assert (fresh.header, fresh.is_fresh) == ("Bearer t1", True)
    auth.learn(http.get(f"{desk.url}/v2/", {}), old)  # a late one: t1 stays
    assert auth.grant().header == "Bearer t1"
    with pytest.raises(AccessDeniedError, match="who are you"):
        auth.learn(http.get(f"{desk.url}/v2/", {}), fresh)


def test_basic_is_shown_once(desk: Desk, http: Http) -> None:
    desk.challenge = 'Basic realm="r"'
    auth = refused(desk, http, PERSON)
    grant = auth.grant()
    assert grant.header == "Basic " + base64.b64encode(b"me:s3cret!word").decode()
    with pytest.raises(AccessDeniedError, match="of user 'me'"):
        auth.learn(http.get(f"{desk.url}/v2/", {}), grant)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ("", AccessDeniedError),
        ("Negotiate", AccessDeniedError),
        ("Bearer scope=x", AccessDeniedError),
        ('Bearer realm="', TransferError),
        ('Bearer realm="ftp://x/"', TransferError),
        ('Bearer realm="no url"', TransferError),
        ("Basic realm=x", AccessDeniedError),  # and there are no credentials
    ],
)
def test_challenges_we_cannot_meet(
    desk: Desk, http: Http, wrong: str, kind: type[Exception]
) -> None:
    desk.challenge = wrong
    with pytest.raises(kind):
        refused(desk, http, None)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ((200, {}, b"<html>log in</html>"), PermanentError),
        ((200, {"Content-Type": "text/html"}, b" <p>log in"), PermanentError),
        ((200, {}, b"{}"), TransientError),
        ((200, {}, b'{"token":""}'), TransientError),
        ((200, {}, b'{"token":"a\\r\\nX-Evil: 1"}'), TransientError),
        ((200, {}, b'{"token":5}'), TransientError),
        ((401, {}, b"no"), AccessDeniedError),
        ((403, {}, b"no"), AccessDeniedError),
        ((429, {"Retry-After": "3"}, b""), TransientError),
        ((500, {}, b""), TransientError),
        ((302, {"Location": "ftp://x/"}, b""), PermanentError),
    ],
)
def test_a_token_endpoint_that_gives_none(
    desk: Desk, http: Http, reply: Reply, kind: type[Exception]
) -> None:
    desk.token = lambda request: reply
    auth = refused(desk, http, PERSON)
    with pytest.raises(kind) as caught:
        auth.grant()
    assert type(caught.value) is kind
    assert PERSON.password not in str(caught.value)


def test_an_endless_token_is_cut_off(desk: Desk, http: Http) -> None:
    desk.token = lambda request: (200, {}, b'{"token":"' + b"t" * (2 << 20) + b'"}')
    with pytest.raises(ZPullError, match="limit"):
        refused(desk, http, None).grant()


def test_an_echo_does_not_tell_secrets(desk: Desk, http: Http) -> None:
    desk.token = lambda request: (
        400,
        {},
        f"bad header {request.headers['Authorization']}".encode(),
    )
    with pytest.raises(TransferError, match="bad header") as caught:
        refused(desk, http, PERSON).grant()
    assert base64.b64encode(b"me:s3cret!word").decode() not in str(caught.value)


def test_the_token_endpoint_may_redirect_but_not_take_the_password_along(
    desk: Desk, http: Http
) -> None:
    other = Desk()
    try:
        desk.token = lambda request: (307, {"Location": f"{other.url}/token"}, b"")
        assert refused(desk, http, PERSON).grant().header == "Bearer t0"
        assert "Authorization" in desk.asked[0].headers
        assert "Authorization" not in other.asked[0].headers
    finally:
        other.server.stop()


class _Challenged:
    """An answer of a registry behind TLS."""

    status = 401
    url = "https://r.example/v2/"

    def __init__(self, challenge: str) -> None:
        self.headers = {"WWW-Authenticate": challenge}

    def status_error(self, what: str) -> ZPullError:
        return AccessDeniedError(f"{what}: 401")


def test_a_password_is_not_sent_in_the_open_for_a_registry_behind_tls(http: Http) -> None:
    answer: Any = _Challenged('Bearer realm="http://auth.example/token"')
    auth = Auth(http, ProtectedRepository("r.example", "a/b"), lambda: PERSON, clock=Clock())
    with pytest.raises(AccessDeniedError, match=r"unencrypted to http://auth\.example/token"):
        auth.learn(answer, auth.grant())
    # nor on the next try: nothing was remembered
    with pytest.raises(AccessDeniedError, match="refused"):
        auth.learn(answer, auth.grant())
    anonymous = Auth(http, ProtectedRepository("r.example", "a/b"), lambda: None, clock=Clock())
    with pytest.raises(AccessDeniedError, match="a token fetched unencrypted"):
        anonymous.learn(answer, anonymous.grant())


def test_a_password_is_not_sent_in_the_open_for_an_unencrypted_registry_either(http: Http) -> None:
    answer: Any = _Challenged('Bearer realm="http://auth.example/token"')
    answer.url = "http://r.example:5000/v2/"
    for credentials in (PERSON, Credentials(identity_token="identity-hush")):
        auth = Auth(
            http,
            ProtectedRepository("r.example:5000", "a/b"),
            lambda found=credentials: found,  # type: ignore[misc]
            clock=Clock(),
        )
        with pytest.raises(AccessDeniedError, match=r"unencrypted to http://auth\.example/token"):
            auth.learn(answer, auth.grant())
        assert auth.grant().header is None
    anonymous = Auth(
        http, ProtectedRepository("r.example:5000", "a/b"), lambda: None, clock=Clock()
    )
    anonymous.learn(answer, anonymous.grant())  # nothing secret is sent


def test_a_realm_that_was_remembered_is_judged_again_when_it_is_used(
    desk: Desk, http: Http
) -> None:
    auth = refused(desk, http, PERSON)
    remembered = auth._scope
    assert remembered is not None
    auth._scope = structs.replace(remembered, realm="http://auth.example/token")
    with pytest.raises(AccessDeniedError, match="unencrypted"):
        auth.grant()


def test_credentials_are_looked_up_once_and_only_when_asked_for(desk: Desk, http: Http) -> None:
    looks: list[int] = []

    def look_up() -> Credentials:
        looks.append(1)
        return PERSON

    auth = Auth(http, ProtectedRepository("r.example", "a/b"), look_up, clock=Clock())
    grant = auth.grant()
    assert not looks
    for _ in range(3):
        auth.learn(http.get(f"{desk.url}/v2/", {}), grant)
        auth.grant()
    assert len(looks) == 1


def test_threads_that_are_refused_together_look_for_credentials_once(
    desk: Desk, http: Http
) -> None:
    """Each look may start a helper program that asks the person."""
    everybody = threading.Barrier(8)
    looks: list[int] = []

    def look() -> Credentials:
        looks.append(1)
        begun.wait(5)
        return PERSON

    begun = threading.Event()
    auth = Auth(http, ProtectedRepository("r.example", "a/b"), look, clock=Clock())

    def refused_as_well() -> None:
        grant, answer = auth.grant(), http.get(f"{desk.url}/v2/", {})
        everybody.wait(5)
        auth.learn(answer, grant)

    threads = [threading.Thread(target=refused_as_well) for _ in range(8)]
    for thread in threads:
        thread.start()
    begun.set()
    for thread in threads:
        thread.join()
    assert looks == [1]
    assert auth.grant().header == "Bearer t0"
