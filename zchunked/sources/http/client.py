"""Send HTTP requests, once each: bytes counted, redirects checked, failures as our errors."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import requests

from zchunked import __version__
from zchunked.errors import AccessDeniedError, PermanentError, TransientError
from zchunked.events import Requested
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.sources.http.connections.proxies import proxy_for
from zchunked.sources.http.connections.sessions import SENT_AT_ONCE, SessionPool
from zchunked.sources.http.errors.network_errors import (
    CannotConnectError,
    ConnectionTimedOutError,
    UnreachableError,
)
from zchunked.sources.http.locations.redirect_guard import refuse_inward
from zchunked.sources.http.locations.urls import (
    hidden_values,
    netloc,
    origin,
    redirect_target,
    shown,
)
from zchunked.sources.http.response import FOREIGN, HttpResponse, translated_cause
from zchunked.sources.traffic import Traffic

MOST_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Body:
    """Body of a request, of a known size; it may be read again from its beginning.

    `sent`: bytes handed over, all times taken together.
    """

    def __init__(
        self, size: int, pieces: Callable[[], Iterable[bytes | memoryview]], traffic: Traffic
    ) -> None:
        self._size, self._pieces, self._traffic = size, pieces, traffic
        self.sent = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[memoryview]:
        for piece in self._pieces():
            for at in range(0, len(piece), SENT_AT_ONCE):
                step = memoryview(piece)[at : at + SENT_AT_ONCE]
                yield step
                self.sent += len(step)
                self._traffic.sent(len(step))


class Http:
    """Sends requests for all threads of a pull."""

    def __init__(
        self,
        traffic: Traffic,
        *,
        sessions: SessionPool | None = None,
        connect_seconds: float = 10.0,
        stall_seconds: float = 10.0,
        environment: Mapping[str, str] = MappingProxyType({}),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`environment` gives the proxies.

        `sessions`, closed with this, hold the trusted certificates.
        """
        self._environment = environment
        self.traffic, self._limits = traffic, limits
        traffic.can_drain = True
        self._connect, self._stall = connect_seconds, stall_seconds
        self._sessions = sessions or SessionPool()

    def close(self) -> None:
        """Close the idle connections; those at work close when their answers do."""
        self._sessions.close()

    def get(
        self, url: str, headers: Mapping[str, str], *, authorization: str | None = None
    ) -> HttpResponse:
        """The answer at the end of all redirects; its `url` says where that is.

        `authorization` is for the origin of `url` alone: once a redirect has led elsewhere it is
        not shown any more, not even where a later one leads back, for then others choose what is
        asked.
        """
        server, target = origin(url), url
        for _ in range(MOST_REDIRECTS + 1):
            authorization = authorization if origin(target) == server else None
            answer = self.send(target, headers, authorization=authorization)
            location = answer.headers.get("Location")
            if answer.status not in REDIRECTS or not location:
                return answer
            answer.excerpt()
            target = self.redirected(target, location)
        raise PermanentError(
            f"{shown(url)}: more than {MOST_REDIRECTS} redirects, the last to {shown(target)}"
        )

    def redirected(self, url: str, location: str) -> str:
        """As `redirect_target`; to http only if certificates are not checked; never inward."""
        target = redirect_target(url, location, may_leave_tls=not self._sessions.verifies)
        refuse_inward(url, target)
        return target

    def send(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        authorization: str | None = None,
        form: Mapping[str, str] | None = None,
        method: str | None = None,
        body: Body | None = None,
        answer_seconds: float | None = None,
    ) -> HttpResponse:
        """Send a GET, a POST of a form, or another method. Redirects are responses like any other.

        `answer_seconds`: how long the answer may be awaited, where that is longer than a silence
        usually may.
        """
        if self.traffic.has_ended:
            raise TransientError(f"{netloc(url)}: not asked, for the pull has ended")
        server = origin(url)
        whole = {"Accept-Encoding": "identity", "User-Agent": f"zpull/{__version__}", **headers}
        secrets = hidden_values(url) + [
            value for key, value in (form or {}).items() if "token" in key
        ]
        if authorization:
            whole["Authorization"] = authorization
            secrets += _spelled_out(authorization)
        proxy = proxy_for(url, self._environment)
        session = self._sessions.take(server)
        try:
            method = method or ("GET" if form is None else "POST")
            data: Any = body if body is not None and len(body) else form
            request = requests.Request(method, url, headers=whole, data=data, auth=_no_auth)
            prepared = session.prepare_request(request)
        except (requests.RequestException, ValueError) as error:
            self._sessions.put_back(server, session)
            raise PermanentError(
                f"{shown(url)!r:.300}: cannot be asked for: {type(error).__name__}"
            ) from None
        began = time.monotonic()
        try:
            response = session.send(
                prepared,
                stream=True,
                allow_redirects=False,
                timeout=(self._connect, max(self._stall, answer_seconds or 0)),
                proxies={server[0]: proxy} if proxy else {},
            )
        except FOREIGN as error:
            self._sessions.put_back(server, session)
            cause, ours = translated_cause(error, netloc(url), self._stall, None)
            if not isinstance(
                ours,
                (UnreachableError, ConnectionTimedOutError, CannotConnectError, AccessDeniedError),
            ):
                self.traffic.asked(_requested(prepared, 0, began))
            raise ours from cause
        except BaseException:
            session.close()
            raise
        self.traffic.asked(_requested(prepared, response.status_code, began))
        self.traffic.answered(time.monotonic() - began)
        free = partial(self._sessions.put_back, server, session)
        return HttpResponse(response, self.traffic, free, self._stall, self._limits, secrets)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from finding credentials by itself, in the URL for one."""
    return request


def _requested(request: requests.PreparedRequest, status: int, began: float) -> Requested:
    ranges = request.headers.get("Range", "")
    return Requested(
        request.method or "", shown(request.url or ""), status, time.monotonic() - began, ranges
    )


def _spelled_out(authorization: str) -> list[str]:
    """What a server may echo of a header: its credentials, and the password in them."""
    scheme, _, text = authorization.partition(" ")
    if scheme != "Basic":
        return [text]
    password = b64decode(text).decode("utf-8", "replace").partition(":")[2]
    return [text, password] if password else [text]
