"""Read one HTTP response: its head, and its body piece by piece; failures become our errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Self

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProxyError

from zchunked.errors import LimitError, TransferError, ZPullError
from zchunked.limits import Limits
from zchunked.sources.http.connections.connection import expect_more
from zchunked.sources.http.content_coding import document_of
from zchunked.sources.http.errors.network_errors import causes_of, translated
from zchunked.sources.http.errors.status_errors import is_page, page_error, status_error
from zchunked.sources.http.locations.urls import netloc
from zchunked.sources.traffic import Traffic

FOREIGN = (requests.RequestException, HTTPError, HTTPException, OSError)
"""What the libraries raise; ssl.SSLError and timeouts are OSErrors."""


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
        self.length = (
            int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else None
        )
        """What Content-Length says of the body; None when it says nothing."""
        self.secrets = secrets
        """What the request carried and no message may repeat."""
        self.traffic = traffic
        """Counts the bytes that it receives."""
        self._response, self._free, self._stall, self._limits = response, free, stall, limits
        self._received = 0
        self._is_closed = False
        self._is_parted = (
            response.headers.get("Content-Type", "").lower().startswith("multipart/byteranges")
        )
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

        Raises TransientError when the body breaks off, after every byte received before.
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
        """A JSON document, decompressed, and by how many bytes that made it longer.

        Raises LimitError as `read` does, and PermanentError for a web page.
        """
        data = self.read(most, what)
        found = document_of(self.headers, data, most, what)
        if is_page(self.headers, found):
            raise page_error(what, found)
        return found, len(found) - len(data)

    def excerpt(self) -> bytes:
        """The beginning of a body, for an error message. Never raises; ends the response."""
        received: list[bytes] = []
        with suppress(TransferError):
            for piece in self.pieces(self._limits.error_body_bytes):
                received.append(piece)  # noqa: PERF402 - what arrived before a break is kept
        return b"".join(received)

    def status_error(self, what: str) -> ZPullError:
        """The error to raise for this response; reads what its body has to say."""
        return status_error(
            self.status, self.headers, self.excerpt(), what, secrets=self.secrets, now=time.time()
        )

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
            # read1 hands over what has arrived; read and iter_content lose it when the connection
            # breaks meanwhile.
            return self._response.raw.read1(size, decode_content=False) or b""
        except FOREIGN as error:
            cause, ours = translated_cause(error, self.host, self._stall, self._received)
            raise ours from cause

    def _settle(self) -> None:
        """Read a body to its end where little is left: then the connection can be reused."""
        if (
            self._received == self.length
            or self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        ):
            with suppress(TransferError):
                self._read(1)


def translated_cause(
    error: Exception, host: str, seconds: float, received: int | None
) -> tuple[BaseException, ZPullError]:
    """The cause to chain, and our error for it.

    The cause is the innermost one: those around it have URLs, and with them signatures, in their
    texts.
    """
    causes = causes_of(error)
    is_connecting = any(isinstance(one, ConnectTimeoutError) for one in causes)
    is_proxy = any(isinstance(one, ProxyError) for one in causes)
    ours = translated(
        causes,
        host,
        seconds=seconds,
        received=received,
        is_connecting=is_connecting,
        is_proxy=is_proxy,
    )
    return causes[-1], ours
