"""A link in user space: a TCP relay with a rate and a round-trip time, as a process of its own.

`python -m tests.bench.link HOST:PORT BYTES_PER_SECOND RTT_SECONDS` prints the port it listens on,
and runs until ended.

Each direction is one wire of that rate, shared by all connections in turn, a short queue before it;
what leaves the wire arrives half a round trip later. A new connection's first bytes wait one round
trip more, for the handshake that loopback does at once. Not imitated: slow start, loss, and the
framing of packets.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_QUEUE_SECONDS = 0.010
"""How far ahead the wire is booked."""
_WINDOW_ROUNDS = 2
"""What a connection may have on its way, in bandwidth-delay products."""
_LEAST_PIECE, _MOST_PIECE = 1_448, 131_072


@dataclass(frozen=True, slots=True)
class Link:
    """What is imitated; a rate of None is loopback itself."""

    name: str
    rate: float | None = None
    """Bytes per second."""
    rtt: float = 0.0
    """Seconds."""

    def limit(self, size: int) -> float:
        """The least seconds to request and receive `size` bytes, without the four round trips."""
        return (size / self.rate if self.rate else 0.0) + 4 * self.rtt


LINKS = (
    Link("loopback"),
    Link("1 Gbit/s, 1 ms", 125e6, 0.001),
    Link("50 Mbit/s, 40 ms", 6.25e6, 0.040),
    Link("10 Mbit/s, 100 ms", 1.25e6, 0.100),
)


@contextmanager
def linked(link: Link, host: str) -> Iterator[str]:
    """The address under which `host` (address:port) is reached over the link."""
    if link.rate is None:
        yield host
        return
    argv = [sys.executable, "-m", "tests.bench.link", host, repr(link.rate), repr(link.rtt)]
    home = Path(__file__).parents[2]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=home) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


@dataclass
class _Wire:
    """One direction. Pure but for nothing: the clock is passed in."""

    rate: float
    free_at: float = 0.0

    def book(self, now: float, size: int) -> float:
        """Put `size` bytes on the wire; when the last of them has left it."""
        self.free_at = max(now, self.free_at) + size / self.rate
        return self.free_at

    def is_open(self, now: float) -> bool:
        return self.free_at - now < _QUEUE_SECONDS

    @property
    def piece(self) -> int:
        """What one connection may send before it is the next one's turn."""
        return int(min(max(self.rate * _QUEUE_SECONDS / 4, _LEAST_PIECE), _MOST_PIECE))


@dataclass(eq=False)
class _Lane:
    """From one socket to another. `on_its_way`: bytes read and not yet taken by the receiver."""

    source: socket.socket
    target: socket.socket
    wire: _Wire
    shaken: float
    """When the first byte may arrive."""
    arrived: deque[bytes] = field(default_factory=deque)
    on_its_way: int = 0
    ended: bool = False
    """The source has no more."""
    closed: bool = False


class _Relay:
    def __init__(self, upstream: tuple[str, int], rate: float, rtt: float) -> None:
        self._upstream, self._rtt = upstream, rtt
        self._down, self._up = _Wire(rate), _Wire(rate)
        self._window = max(4 * _MOST_PIECE, int(_WINDOW_ROUNDS * rate * (rtt + _QUEUE_SECONDS)))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._lanes: deque[_Lane] = deque()
        self._due: list[tuple[float, int, _Lane, bytes]] = []
        self._order = itertools.count()

    @property
    def port(self) -> int:
        found: int = self._listener.getsockname()[1]
        return found

    def turn(self) -> None:
        """Wait for something to do and do it."""
        now = time.monotonic()
        self._deliver(now)
        ready = [lane for lane in self._lanes if not lane.ended and lane.on_its_way < self._window]
        reading = [lane for lane in ready if lane.wire.is_open(now)]
        writing = [lane for lane in self._lanes if lane.arrived]
        moments = [self._due[0][0]] if self._due else []
        if len(reading) < len(ready):
            moments += [
                wire.free_at - _QUEUE_SECONDS
                for wire in (self._down, self._up)
                if not wire.is_open(now)
            ]
        timeout = max(0.0, min(moments) - now) if moments else None
        inputs = [self._listener, *(lane.source for lane in reading)]
        readable, writable, _ = select.select(
            inputs, [lane.target for lane in writing], [], timeout
        )
        may_read, may_write = set(readable), set(writable)
        if self._listener in may_read:
            self._accept()
        for lane in writing:
            if lane.target in may_write:
                self._write(lane)
        self._lanes.rotate(-1)
        for lane in reading:
            if lane.source in may_read and lane.wire.is_open(time.monotonic()):
                self._read(lane)
                self._lanes.remove(lane)
                self._lanes.append(lane)
        self._sweep()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._upstream)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        shaken = time.monotonic() + self._rtt * 1.5
        self._lanes += [
            _Lane(client, server, self._up, shaken),
            _Lane(server, client, self._down, shaken),
        ]

    def _read(self, lane: _Lane) -> None:
        data = b""
        with suppress(ConnectionError):
            data = lane.source.recv(lane.wire.piece)
        if not data:
            lane.ended = True
        lane.on_its_way += len(data)
        left = lane.wire.book(time.monotonic(), len(data))
        heapq.heappush(
            self._due, (max(left + self._rtt / 2, lane.shaken), next(self._order), lane, data)
        )

    def _deliver(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, _, lane, data = heapq.heappop(self._due)
            lane.arrived.append(data)

    def _write(self, lane: _Lane) -> None:
        try:
            while lane.arrived:
                data = lane.arrived[0]
                if not data:  # the end: of this direction, and with it of the connection
                    lane.target.shutdown(socket.SHUT_WR)
                    lane.arrived.popleft()
                    lane.closed = True
                    continue
                sent = lane.target.send(data)
                lane.on_its_way -= sent
                if sent < len(data):
                    lane.arrived[0] = data[sent:]
                    return
                lane.arrived.popleft()
        except BlockingIOError:
            return
        except OSError:  # the receiver has gone: its peer will be told
            lane.ended = lane.closed = True
            lane.arrived.clear()
            with suppress(OSError):
                lane.source.shutdown(socket.SHUT_RDWR)

    def _sweep(self) -> None:
        """Close pairs whose two directions have both ended."""
        closed = [lane for lane in self._lanes if lane.closed]
        for lane in closed:
            other = next((one for one in self._lanes if one.source is lane.target), None)
            if other is None or other.closed:
                for gone in filter(None, (lane, other)):
                    if gone in self._lanes:
                        self._lanes.remove(gone)
                    gone.source.close()
                    gone.target.close()


def main() -> None:
    address, _, port = sys.argv[1].rpartition(":")
    relay = _Relay((address, int(port)), float(sys.argv[2]), float(sys.argv[3]))
    with suppress(PermissionError):
        # a network does not wait for the programs that use it
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    print(relay.port, flush=True)
    while True:
        relay.turn()


if __name__ == "__main__":
    main()
