"""Put answers on a socket, at the speed and with the faults they call for, and count."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from http import HTTPStatus
from itertools import pairwise

from tests.helpers.servers.accounts import Accounts, Request
from tests.helpers.servers.answers import Answer, Piece
from tests.helpers.servers.faults import Outage

_BLOCK = 1 << 16
_TICK = 0.02
_NO_BODY = frozenset({204, 304})


class ConnectionCutError(Exception):
    """The connection is to end now: by RST, or by FIN."""

    def __init__(self, *, hard: bool) -> None:
        self.hard = hard


class Wire:
    """The link of one server. All its connections share the rate."""

    def __init__(
        self,
        accounts: Accounts,
        stopping: threading.Event,
        *,
        rate: float | None,
        outages: Sequence[Outage],
    ) -> None:
        self._accounts = accounts
        self._stopping = stopping
        self._rate = rate
        self._outages = outages
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the server began."""
        return time.monotonic() - self._began

    def wait(self, seconds: float) -> None:
        """Raises ConnectionCutError when the server stops meanwhile."""
        if seconds > 0 and self._stopping.wait(seconds):
            raise ConnectionCutError(hard=False)

    def weather(self) -> None:
        """Raises ConnectionCutError in an outage; sits out a silent one."""
        for outage in self._outages:
            with self._lock:
                left = outage.left(now=self.seconds, sent=self._accounts.body_bytes)
            if left and not outage.silent:
                raise ConnectionCutError(hard=True)
            self.wait(left)

    def send(self, connection: socket.socket, answer: Answer, request: Request) -> None:
        """ConnectionCutError when the answer ends the connection, OSError when the client did."""
        pauses = sorted(answer.pauses)
        while pauses and pauses[0][0] < 0:
            self.wait(pauses.pop(0)[1])
        if answer.end_after == -1:
            raise ConnectionCutError(hard=answer.end == "rst")
        self.weather()
        self._accounts.answered(request, answer.status)
        connection.sendall(_head(answer))
        bodyless = request.method == "HEAD" or answer.status in _NO_BODY
        sent = 0
        stops = [at for at, _ in pauses] + ([] if answer.end_after is None else [answer.end_after])
        block_size = answer.trickle[0] if answer.trickle else self._block_size()
        for piece in () if bodyless else _blocks(answer.body, block_size, stops):
            while pauses and pauses[0][0] <= sent:
                self.wait(pauses.pop(0)[1])
            if sent == answer.end_after:
                break
            self.weather()
            self._pace(len(piece.data))
            self._put(connection, piece, request, chunked=answer.chunked)
            sent += len(piece.data)
            if answer.trickle:
                self.wait(answer.trickle[1])
        for _, seconds in pauses:
            self.wait(seconds)
        if answer.end != "keep":
            raise ConnectionCutError(hard=answer.end == "rst")
        if answer.chunked and not bodyless:
            connection.sendall(b"0\r\n\r\n")

    def _put(
        self, connection: socket.socket, piece: Piece, request: Request, *, chunked: bool
    ) -> None:
        data, at = memoryview(piece.data), piece.at
        if chunked:
            connection.sendall(b"%x\r\n" % len(data))
        while data:
            if _is_gone(connection):
                raise ConnectionCutError(hard=True)
            self._accounts.sent(request, len(data), at)
            taken = 0
            try:
                taken = connection.send(data)
            finally:
                self._accounts.unsent(request, len(data) - taken, at)
            data, at = data[taken:], None if at is None else at + taken
        if chunked:
            connection.sendall(b"\r\n")

    def _block_size(self) -> int:
        return _BLOCK if self._rate is None else max(1, min(_BLOCK, int(self._rate * _TICK)))

    def _pace(self, size: int) -> None:
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self._rate
            delay = self._free_at - now
        self.wait(delay)


def _head(answer: Answer) -> bytes:
    phrase = HTTPStatus(answer.status).phrase
    headers = {"Date": formatdate(usegmt=True)} | answer.headers
    if answer.chunked:
        headers.pop("Content-Length", None)
        headers["Transfer-Encoding"] = "chunked"
    lines = [
        f"HTTP/1.1 {answer.status} {phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _blocks(body: Sequence[Piece], size: int, stops: Sequence[int]) -> Iterator[Piece]:
    """The body in blocks of at most this size, with an edge at every stop."""
    begun = 0
    for piece in body:
        view, total = memoryview(piece.data), len(piece.data)
        edges = {stop - begun for stop in stops if 0 < stop - begun < total}
        edges.update(range(0, total, size))
        edges.add(total)
        for start, end in pairwise(sorted(edges)):
            yield Piece(view[start:end], None if piece.at is None else piece.at + start)
        begun += total


def _is_gone(connection: socket.socket) -> bool:
    """Whether the client hung up: the system would accept one more block in vain."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def hang_up(connection: socket.socket) -> None:
    """RST, once the peer has been handed what was sent (or is not taking it)."""
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline and _unacknowledged(connection):
        time.sleep(0.001)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())  # the handler's files would keep the socket open


def _unacknowledged(connection: socket.socket) -> int:
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, "little")
