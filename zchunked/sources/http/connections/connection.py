"""urllib3 connections with deadlines: every response must begin, go on and end in time.

`http.client` bounds one `recv` at a time, so a server that dribbles a head, says `100 Continue` for
ever or never ends its trailers would keep a thread for ever. Here each step of an answer (its head;
the next bytes of its body with the framing around them) has a bound in seconds and in bytes.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from http.client import HTTPException, HTTPResponse, LineTooLong, RemoteDisconnected
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)

from zchunked.sources.http.connections.host_lookup import ResolverTimeoutError, addresses_of
from zchunked.sources.http.errors.network_errors import MalformedHeadError

_PATIENCE = 2  # a step may take so many times what one wait for bytes may
_LOST_LINES = (FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect)
_NAME_SECONDS = 10.0  # to look a name up where connecting has no bound
_STEP_BYTES = 1 << 20  # of heads, or of a body's framing and one read


class _Reader(io.RawIOBase):
    """The bytes of a socket. `expect` begins a step; a read beyond its bounds fails."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        """`raw` is closed with the reader: it holds the socket open."""
        self._sock, self._raw = sock, raw
        self._seconds = self._set = sock.gettimeout()
        self._until, self._left = 0.0, 0
        self._failure: OSError | None = None  # met behind received bytes; the next read raises it
        self.has_ended = False
        """The other side has closed the connection."""
        self.expect()

    def expect(self, *, may_wait: bool = True) -> None:
        if not may_wait and self._seconds is None:
            self._seconds = 0.001
        self._until = time.monotonic() + (_PATIENCE * (self._seconds or 0.0) if may_wait else 0.0)
        self._left = _STEP_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise LineTooLong("answer's framing")
        if self._failure is not None:
            raise self._failure
        left = max(self._until - time.monotonic(), 0.001)
        self._wait_at_most(None if self._seconds is None else min(self._seconds, left))
        try:
            size = self._sock.recv_into(buffer)
        except TimeoutError:
            # A process that got no CPU may look at its clock only when the bytes have long been
            # here.
            if not select.select([self._sock], [], [], 0)[0]:
                raise
            size = self._sock.recv_into(buffer)
        if size and isinstance(self._sock, ssl.SSLSocket):
            size = self._records(buffer, size)
        self.has_ended |= not size
        self._left -= size
        return size

    def _wait_at_most(self, seconds: float | None) -> None:
        if seconds != self._set:
            self._sock.settimeout(seconds)
            self._set = seconds

    def _records(self, buffer: memoryview, size: int) -> int:
        """Behind the first record, take those that have arrived; returns the size of all of them.

        OpenSSL hands over one at a time, 16 KiB at most. With each taken to the file by itself, a
        cold pull of 352 MB over TLS took 2.7 s, five times skopeo's; now 1.2 s.
        """
        self._wait_at_most(0.0)
        try:
            while size < len(buffer) and (more := self._sock.recv_into(buffer[size:])):
                size += more
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # the rest of a record is on its way
        except OSError as error:
            self._failure = error
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._raw.close()


class Response(HTTPResponse):
    """An answer within bounds. Malformed heads are told from those that were cut off."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _Reader(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        try:
            super().begin()
        except HTTPException as error:
            if self._reader.has_ended:
                raise
            raise MalformedHeadError(type(error).__name__) from error
        if self._reader.has_ended:  # in the middle of the head: http.client takes the rest as empty
            raise RemoteDisconnected("the head of the answer is cut off")
        length = self.headers.get("Content-Length", "0").strip()
        if any(isinstance(one, _LOST_LINES) for one in self.headers.defects):
            raise MalformedHeadError("a line that is not a header")
        if not self.chunked and not (length.isascii() and length.isdecimal()):
            raise MalformedHeadError("Content-Length is not a number")

    def expect(self, *, may_wait: bool = True) -> None:
        """Begin the next step: more of the body; only received bytes, unless it may wait."""
        self._reader.expect(may_wait=may_wait)


class _Watched:
    response_class = Response
    _dns_host: str
    timeout: float | None

    def _new_conn(self) -> Any:
        """Connect to the first address that accepts.

        The name itself stays, as certificates are for it.
        """
        name, failure = self._dns_host, None
        for address in self._addresses(name):
            self._dns_host = address
            try:
                return super()._new_conn()  # type: ignore[misc]
            except HTTPError as error:
                failure = error
            finally:
                self._dns_host = name
        raise failure or NewConnectionError(self, "the name has no address")  # type: ignore[arg-type]

    def _addresses(self, name: str) -> list[str]:
        try:
            return addresses_of(name, self.timeout or _NAME_SECONDS)
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from error  # type: ignore[arg-type]
        except ResolverTimeoutError as error:
            raise NewConnectionError(self, str(error)) from error  # type: ignore[arg-type]
        except UnicodeError as error:
            raise LocationParseError(f"{name!r:.80}, no name") from error

    def getresponse(self) -> Any:
        try:
            return super().getresponse()  # type: ignore[misc]
        except InvalidHeader as error:  # two lengths that contradict each other
            raise MalformedHeadError("InvalidHeader") from error


class _Http(_Watched, HTTPConnection):  # type: ignore[misc]
    pass


class _Https(_Watched, HTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


def expect_more(raw: Any, *, may_wait: bool = True) -> None:
    """The next read of this urllib3 body is a step of its own.

    One that may not wait fails at once where nothing has been received.
    """
    if isinstance(raw._fp, Response):  # noqa: SLF001 - urllib3 has no other way to it
        raw._fp.expect(may_wait=may_wait)  # noqa: SLF001


POOLS: dict[str, Any] = {"http": _HttpPool, "https": _HttpsPool}
"""For `pool_classes_by_scheme` of urllib3's pool managers."""
