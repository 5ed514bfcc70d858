"""Send HTTP requests, once each: every byte is counted, redirects are checked, failures become our own errors."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from types import MappingProxyType
from typing import Any, Self

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProxyError

from zchunked import __version__
from zchunked.errors import AccessDeniedError, LimitError, PermanentError, TransferError, TransientError, ZPullError
from zchunked.events import Requested
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.sources.http.connection import expect_more
from zchunked.sources.http.content_coding import document_of
from zchunked.sources.http.guard import refuse_inward
from zchunked.sources.http.network_errors import NoWayError, UnheardError, UnreachableError, causes_of, translated
from zchunked.sources.http.proxies import proxy_for
from zchunked.sources.http.sessions import SENT_AT_ONCE, SessionPool
from zchunked.sources.http.status_errors import is_page, page_error, status_error
from zchunked.sources.http.urls import hidden_values, netloc, origin, redirect_target, shown
from zchunked.sources.traffic import Traffic

MOST_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FOREIGN = (requests.RequestException, HTTPError, HTTPException, OSError)  # ssl.SSLError and timeouts are OSErrors


class HttpResponse:
    """The head of a response, and its body yet to be read.

    Read the body to its end or close the response: either frees the connection. For one thread.
    """

    def __init__(
        self,
        response: requests.Response,
        traffic: Traffic,
        free: Callable[[], None],
        stall: float,
        limits: Limits,
        secrets: list[str],
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url: str = response.url
        length = response.headers.get("Content-Length", "")
        self.length = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else None
        """What Content-Length says of the body; None when it says nothing."""
        self.secrets = secrets
        """What the request carried and no message may repeat."""
        self.traffic = traffic
        """Counts what it brings."""
        self._response, self._free, self._stall, self._limits = response, free, stall, limits
        self._received = 0
        self._is_closed = False
        self._is_parted = response.headers.get("Content-Type", "").lower().startswith("multipart/byteranges")
        traffic.begun(is_parted=self._is_parted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def host(self) -> str:
        """Who sent it, as `host[:port]`."""
        return netloc(self.url)

    def pieces(self, most: int) -> Iterator[bytes]:
        """Body bytes as they arrive, at most so many; a longer body is cut off.

        Raises TransientError when the body breaks off, after every byte that came before.
        """
        left = most
        try:
            self.traffic.announce(min(most, self.length or 0))
            most_at_once = self.traffic.piece_bytes
            while left > 0 and (piece := self._read(min(left, most_at_once))):
                left -= len(piece)
                yield piece
            if left <= 0:
                self._settle()
        finally:
            self.close()

    def read(self, most: int, what: str) -> bytes:
        """The whole body. Raises LimitError when it is longer than `most` bytes."""
        size = self.length or 0
        if size <= most:
            data = b"".join(self.pieces(most + 1))
            if (size := len(data)) <= most:
                return data
        self.close()
        raise LimitError(f"{what} has {size} bytes or more, the limit is {most}")

    def document(self, most: int, what: str) -> tuple[bytes, int]:
        """A JSON document, unpacked where the server packed it, and by how many bytes that made it longer.

        Raises LimitError as `read` does, and PermanentError for a web page.
        """
        data = self.read(most, what)
        found = document_of(self.headers, data, most, what)
        if is_page(self.headers, found):
            raise page_error(what, found)
        return found, len(found) - len(data)

    def excerpt(self) -> bytes:
        """The beginning of a body, for its message. Never raises; the answer is done with afterwards."""
        came: list[bytes] = []
        with suppress(TransferError):
            for piece in self.pieces(self._limits.error_body_bytes):
                came.append(piece)  # noqa: PERF402 - what came before a break is kept
        return b"".join(came)

    def status_error(self, what: str) -> ZPullError:
        """The error to raise for this response; reads what its body has to say."""
        return status_error(self.status, self.headers, self.excerpt(), what, secrets=self.secrets, now=time.time())

    def close(self) -> None:
        """May be called twice. A body that was not read to its end takes the connection with it."""
        if not self._is_closed:
            self._is_closed = True
            self.traffic.ended(is_parted=self._is_parted)
            self._response.close()
            self._free()

    def _read(self, size: int) -> bytes:
        left = size if self.length is None else self.length - self._received
        granted = self.traffic.grant(min(size, left)) if left > 0 else 0
        piece = b""
        try:
            piece = self._receive(granted or size)
        finally:
            self._received += len(piece)
            self.traffic.received(len(piece), granted)
        return piece

    def _receive(self, size: int) -> bytes:
        try:
            expect_more(self._response.raw, may_wait=not self.traffic.has_ended)
            # read1 hands over what has arrived; read and iter_content lose it when the connection breaks meanwhile.
            return self._response.raw.read1(size, decode_content=False) or b""
        except _FOREIGN as error:
            cause, ours = _translated(error, self.host, self._stall, self._received)
            raise ours from cause

    def _settle(self) -> None:
        """A body that ends where we stop reading leaves its connection good for the next request."""
        if self._received == self.length or self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            with suppress(TransferError):
                self._read(1)


class Body:
    """What a request carries, of a known size; it may be asked for again from its beginning. `sent`: bytes handed over,
    all times taken together.
    """

    def __init__(self, size: int, pieces: Callable[[], Iterable[bytes | memoryview]], traffic: Traffic) -> None:
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
        """`environment` says which proxies to go through. `sessions`, closed with this, say whom to trust."""
        self._environment = environment
        self.traffic, self._limits = traffic, limits
        traffic.can_drain = True
        self._connect, self._stall = connect_seconds, stall_seconds
        self._sessions = sessions or SessionPool()

    def close(self) -> None:
        """Close the idle connections; those at work close when their answers do."""
        self._sessions.close()

    def get(self, url: str, headers: Mapping[str, str], *, authorization: str | None = None) -> HttpResponse:
        """The answer at the end of all redirects; its `url` says where that is.

        `authorization` is for the origin of `url` alone: once a redirect has led elsewhere it is not
        shown any more, not even where a later one leads back, for then others choose what is asked.
        """
        home, target = origin(url), url
        for _ in range(MOST_REDIRECTS + 1):
            authorization = authorization if origin(target) == home else None
            answer = self.send(target, headers, authorization=authorization)
            location = answer.headers.get("Location")
            if answer.status not in REDIRECTS or not location:
                return answer
            answer.excerpt()
            target = self.redirected(target, location)
        raise PermanentError(f"{shown(url)}: more than {MOST_REDIRECTS} redirects, the last to {shown(target)}")

    def redirected(self, url: str, location: str) -> str:
        """As `redirect_target`: from https to http only where certificates are not checked either, and never inward."""
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
        """One request: GET, or POST of a form, or of another method. Redirects are answers like any other.

        `answer_seconds`: how long the answer may be awaited, where that is longer than a silence usually may.
        """
        if self.traffic.has_ended:
            raise TransientError(f"{netloc(url)}: not asked, for the pull has ended")
        home = origin(url)
        whole = {"Accept-Encoding": "identity", "User-Agent": f"zpull/{__version__}", **headers}
        secrets = hidden_values(url) + [value for key, value in (form or {}).items() if "token" in key]
        if authorization:
            whole["Authorization"] = authorization
            secrets += _spelled_out(authorization)
        proxy = proxy_for(url, self._environment)
        session = self._sessions.take(home)
        try:
            method = method or ("GET" if form is None else "POST")
            data: Any = body if body is not None and len(body) else form
            request = requests.Request(method, url, headers=whole, data=data, auth=_no_auth)
            prepared = session.prepare_request(request)
        except (requests.RequestException, ValueError) as error:
            self._sessions.put_back(home, session)
            raise PermanentError(f"{shown(url)!r:.300}: cannot be asked for: {type(error).__name__}") from None
        began = time.monotonic()
        try:
            response = session.send(
                prepared,
                stream=True,
                allow_redirects=False,
                timeout=(self._connect, max(self._stall, answer_seconds or 0)),
                proxies={home[0]: proxy} if proxy else {},
            )
        except _FOREIGN as error:
            self._sessions.put_back(home, session)
            cause, ours = _translated(error, netloc(url), self._stall, None)
            if not isinstance(ours, (UnreachableError, UnheardError, NoWayError, AccessDeniedError)):
                self.traffic.asked(_requested(prepared, 0, began))
            raise ours from cause
        except BaseException:
            session.close()
            raise
        self.traffic.asked(_requested(prepared, response.status_code, began))
        self.traffic.answered(time.monotonic() - began)
        free = partial(self._sessions.put_back, home, session)
        return HttpResponse(response, self.traffic, free, self._stall, self._limits, secrets)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from finding credentials by itself, in the URL for one."""
    return request


def _requested(request: requests.PreparedRequest, status: int, began: float) -> Requested:
    ranges = request.headers.get("Range", "")
    return Requested(request.method or "", shown(request.url or ""), status, time.monotonic() - began, ranges)


def _spelled_out(authorization: str) -> list[str]:
    """What a server may echo of a header: its credentials, and the password in them."""
    scheme, _, text = authorization.partition(" ")
    if scheme != "Basic":
        return [text]
    password = b64decode(text).decode("utf-8", "replace").partition(":")[2]
    return [text, password] if password else [text]


def _translated(error: Exception, host: str, seconds: float, received: int | None) -> tuple[BaseException, ZPullError]:
    """The cause to chain, and our error for it.

    The cause is the innermost one: those around it have URLs, and with them signatures, in their texts.
    """
    causes = causes_of(error)
    is_connecting = any(isinstance(one, ConnectTimeoutError) for one in causes)
    is_proxy = any(isinstance(one, ProxyError) for one in causes)
    ours = translated(causes, host, seconds=seconds, received=received, is_connecting=is_connecting, is_proxy=is_proxy)
    return causes[-1], ours
