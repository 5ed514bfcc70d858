"""Limit how long a client may block a thread, by sending its request or reading its response."""

from __future__ import annotations

import fcntl
import io
import math
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

STALL_SECONDS = 30  # a client that takes nothing, or sends nothing; nginx's send_timeout has 60
_REQUEST_SECONDS = 10  # for all of a request: byte after byte would keep a thread busy for hours
# An answer that is taken slower is given up; 64 kbit/s. IIS and Kestrel ask for 240 B/s, but here
# a blob of 1 GiB would hold a thread for 50 days with that, and for 36 hours with this.
_LEAST_RATE = 8 << 10
# While every thread is busy and others wait: 50 engines with three layers each on a line of
# 100 Mbit/s take 80 kB/s each.
_CROWDED_RATE = 64 << 10
_CROWDED_SECONDS = 3.0
_LOOK_SECONDS = 1.0  # between two looks at what a client has taken
_RECORD = 16 << 10  # of TLS: more at once is not reported until all of it is sent
_SIOCOUTQ = 0x5411  # linux/sockios.h: bytes that the peer has not acknowledged


class Slack:
    """Seconds that a client may still keep its server waiting. Pure.

    Bytes that it takes buy time, but no more than it began with: having been fast does not excuse
    being slow.
    """

    def __init__(self) -> None:
        self.left = float(STALL_SECONDS)

    def pass_by(self, seconds: float, taken: int, *, is_crowded: bool) -> bool:
        """Whether it may go on after so many seconds, in which it took so many bytes."""
        rate, most = (
            (_CROWDED_RATE, _CROWDED_SECONDS) if is_crowded else (_LEAST_RATE, STALL_SECONDS)
        )
        self.left = min(most, self.left + taken / rate) - seconds
        return self.left > 0


class RequestSocket(socket.SocketIO):
    """What a client sends. Reading raises TimeoutError where a request is not there in time."""

    def __init__(self, client: socket.socket) -> None:
        super().__init__(client, "rb")
        self._client = client
        self._due = math.inf

    def expect(self) -> None:
        """A request is due from now on."""
        self._due = time.monotonic() + _REQUEST_SECONDS

    def readinto(self, buffer: Any) -> int | None:
        left = self._due - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._client.settimeout(min(left, STALL_SECONDS))
        return super().readinto(buffer)


class AnswerWriter(io.RawIOBase):
    """What a client is sent. Writing raises TimeoutError where it is taken too slowly.

    Time in which nothing is sent, as while an upstream is waited for, does not count.
    """

    def __init__(
        self,
        client: socket.socket,
        is_crowded: Callable[[], bool],
        log: Callable[[str], None],
        *,
        is_encrypted: bool,
    ) -> None:
        """`is_crowded`: whether other clients wait for a thread. `log`: why one was dropped."""
        self._client, self._is_crowded, self._log = client, is_crowded, log
        self._slack = Slack()
        self._most = _RECORD if is_encrypted else None
        self._taken = 0  # at the last look
        self.bytes_written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write all of it, without copying."""
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                upto = len(view) if self._most is None else min(len(view), at + self._most)
                at += self._send(view[at:upto])
        return at

    def _send(self, piece: memoryview) -> int:
        began, sent = time.monotonic(), 0
        self._client.settimeout(_LOOK_SECONDS)
        with suppress(TimeoutError):
            sent = self._client.send(piece)
        self.bytes_written += sent
        waited = time.monotonic() - began
        if waited > _LOOK_SECONDS / 20:
            self._look(waited)
        return sent

    def _look(self, waited: float) -> None:
        before, self._taken = self._taken, max(self._taken, self.bytes_written - self._queued())
        if self._slack.pass_by(waited, self._taken - before, is_crowded=self._is_crowded()):
            return
        self._log("a client takes its answer too slowly; its connection is closed")
        with suppress(OSError):  # or the kernel keeps for it what it does not take
            linger = struct.pack("ii", 1, 0)
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise TimeoutError("timed out")

    def _queued(self) -> int:
        """Bytes in the kernel that the client has not taken; nought where that is not known.

        A send that returns does not tell it: on loopback the kernel takes 2.5 MB at once, and no
        more until a third of that is gone.
        """
        with suppress(OSError):
            answer = fcntl.ioctl(self._client.fileno(), _SIOCOUTQ, struct.pack("i", 0))
            return int(struct.unpack("i", answer)[0])
        return 0
