"""Count requests and body bytes, in one place, so that the receipt agrees with the server's count.

Every body byte passes through it, so this is also where the rate of all connections is limited.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from zchunked.errors import RefusedError
from zchunked.events import Requested
from zchunked.interfaces import Emit
from zchunked.sources.shared_link import IdleConnections, LinkShare

_TELLING_BYTES = 32 << 10  # less than that says more of the round trip than of the rate
_FORECAST_BYTES = 1 << 20  # a manifest arrives at the rate of a connection that has just begun
_FORECAST_SECONDS = 0.5
_WINDOW_SECONDS = 4.0  # of receiving: what the link did before is no news
_STEP_SECONDS = 0.25
_ANSWERS = 32  # that the round-trip time is taken from
# of answers with several; fewer say more of how the link varies than of their price
_TELLING_PARTS = 200


# One read. Each costs 0.2 ms of Python, and waits for the interpreter's lock four times: with
# 256 KiB a cold pull of 352 MB over loopback takes 8 % longer. A MiB or more would be mapped, and
# its pages cleared, for each read (`cli/tuning.py`).
_MOST_PIECE, _PIECES_PER_SECOND = 896 << 10, 8


class RateLimit:
    """A token bucket over all connections: `take` passes `rate` bytes per second. Thread-safe.

    The bucket holds a quarter of a second, so that an idle link earns no long burst.
    """

    def __init__(
        self, rate: float, *, clock: Callable[[], float], wait: Callable[[float], object]
    ) -> None:
        """`clock` in seconds, monotonic. `wait` sleeps; what it raises ends the take."""
        self.rate = max(rate, 1.0)
        self._clock, self._wait = clock, wait
        self._lock = threading.Lock()
        self._free_at = clock()

    @property
    def piece_bytes(self) -> int:
        """The most that one read should take, so that waits stay short."""
        return max(1, min(_MOST_PIECE, int(self.rate / _PIECES_PER_SECOND)))

    def take(self, size: int) -> None:
        """Return once these received bytes were due. Callers queue up in order."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - 0.25) + size / self.rate
            delay = self._free_at - now
        if delay > 0:
            self._wait(delay)


@dataclass(slots=True)
class _Phase:
    """Time with a body on its way, and the bytes received in it."""

    seconds: float = 0.0
    bytes: int = 0


class Traffic:
    """All that one pull received: blobs, tokens, redirects, errors. Thread-safe.

    It also watches the link, as it is now: only time in which some body is on its way counts, and
    the last seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        limit: RateLimit | None = None,
        link_share: LinkShare | None = None,
    ) -> None:
        """`limit`: `received` returns no sooner than the limit lets those bytes pass.

        `link_share`: where other pulls run beside this one.
        """
        self._clock, self._limit, self.link_share = clock, limit, link_share
        self._has_ended: Callable[[], bool] = lambda: False
        self._most: int | None = None
        self._granted = 0  # bytes that some thread may receive just now
        self._lock = threading.Lock()
        self.can_drain = False
        """Whether who reads heeds `has_ended`: then no read waits any more once that holds."""
        self._listener: Emit | None = None
        self._requests = 0
        self._fetched = self._framing = self._gained = 0
        self._delays: deque[float] = deque(maxlen=_ANSWERS)
        # on their way; of these, how many have several parts
        self._bodies = self._parted_bodies = 0
        self._parts = 0
        self._apart = _Phase()  # while a body of several parts was on its way, and while none was
        self._plain = _Phase()
        self._receiving = 0.0  # seconds with a body on its way, up to `_moment`
        self._moment = 0.0
        self._booked = 0  # bytes that belong to a phase already
        # (seconds of receiving, bytes fetched by then)
        self._steps: deque[tuple[float, int]] = deque([(0.0, 0)])

    @property
    def connections(self) -> IdleConnections | None:
        """Idle connections, shared with the pulls that run beside this one."""
        return self.link_share.link.connections if self.link_share is not None else None

    def end_when(self, has_ended: Callable[[], bool]) -> None:
        """Once this holds, send no request and wait for no byte: hand over received bytes.

        Otherwise they would be sent a second time, and the server would have counted them.
        """
        self._has_ended = has_ended

    @property
    def has_ended(self) -> bool:
        return self._has_ended()

    def allow(self, most: int) -> None:
        """Receive no more than so many body bytes from now on, earlier ones included."""
        self._most = most

    def announce(self, size: int) -> None:
        """A body of this size comes next. RefusedError where that alone is more than is allowed."""
        most = self._most
        if most is not None and self._fetched + size > most:
            raise RefusedError(
                f"an answer of {size} bytes would be more than --max-bytes allows: "
                f"{self._fetched} of {most} bytes have come; they are kept, the same command "
                "with a higher limit goes on from there"
            )

    def grant(self, size: int) -> int:
        """How many of these bytes may be read now; `received` returns the grant.

        RefusedError for none.
        """
        with self._lock:
            room = size if self._most is None else self._most - self._fetched - self._granted
            granted = max(0, min(size, room))
            self._granted += granted
        if not granted and size:
            self.announce(size)
            raise RefusedError(
                f"all {self._most} bytes that --max-bytes allows have come, or are coming just now"
            )
        return granted

    def asked(self, request: Requested | None = None) -> None:
        """Count a request that was sent; `request` reports it to listeners."""
        with self._lock:
            self._requests += 1
            listener = self._listener
        if request is not None and listener is not None:
            listener(request)

    def set_listener(self, emit: Emit | None) -> None:
        """Report each request to `emit` from now on, from any thread."""
        with self._lock:
            self._listener = emit

    def received(self, size: int, granted: int = 0) -> None:
        """Count body bytes of a grant. RefusedError for too many of them without one."""
        with self._lock:
            self._fetched += size
            self._granted -= granted
            if self._bodies:
                self._go_on()
        if size > granted:
            self.announce(0)
        if self._limit is not None:
            self._limit.take(size)

    def sent(self, size: int) -> None:
        """Body bytes of a request, handed over."""
        if self._limit is not None:
            self._limit.take(size)

    @property
    def piece_bytes(self) -> int:
        """The most that one read of a body should take."""
        return _MOST_PIECE if self._limit is None else self._limit.piece_bytes

    def framed(self, size: int, parts: int = 0) -> None:
        """Count received bytes that were headers of a multi-range response's parts."""
        with self._lock:
            self._framing += size
            self._parts += parts

    def unpacked(self, size: int) -> None:
        """A document that a server packed is so much longer than what was received of it."""
        with self._lock:
            self._gained += size

    @property
    def gained(self) -> int:
        return self._gained

    @property
    def framing(self) -> int:
        return self._framing

    @property
    def requests(self) -> int:
        return self._requests

    @property
    def fetched(self) -> int:
        """Body bytes, as received over the wire."""
        return self._fetched

    def answered(self, seconds: float) -> None:
        """An answer began so long after its request was sent."""
        with self._lock:
            self._delays.append(seconds)

    def begun(self, *, is_parted: bool = False) -> None:
        """A body is on its way, until it has `ended`. `is_parted`: it has several parts."""
        with self._lock:
            if self._bodies:
                self._go_on()
            else:
                self._moment = self._clock()
            self._bodies += 1
            self._parted_bodies += is_parted

    def ended(self, *, is_parted: bool = False) -> None:
        """A body that has `begun` has ended."""
        with self._lock:
            self._go_on()
            self._bodies -= 1
            self._parted_bodies -= is_parted

    def _go_on(self) -> None:
        """Time has passed while bodies were on their way."""
        now = self._clock()
        phase = self._apart if self._parted_bodies else self._plain
        phase.seconds += now - self._moment
        phase.bytes += self._fetched - self._booked
        self._booked = self._fetched
        self._receiving += now - self._moment
        self._moment = now
        steps = self._steps
        if self._receiving - steps[-1][0] >= _STEP_SECONDS:
            steps.append((self._receiving, self._fetched))
            while len(steps) > 2 and self._receiving - steps[1][0] >= _WINDOW_SECONDS:
                steps.popleft()

    @property
    def is_rate_known(self) -> bool:
        """Whether enough was received, or for long enough, to estimate by the rate."""
        with self._lock:
            is_long = self._receiving >= _FORECAST_SECONDS and self._fetched >= _TELLING_BYTES
            return self._fetched >= _FORECAST_BYTES or is_long

    @property
    def receiving_seconds(self) -> float:
        """How long some body was on its way."""
        return self._receiving

    @property
    def round_trip(self) -> float | None:
        """Seconds; the shortest of the last answers. None before the first."""
        with self._lock:
            return min(self._delays, default=None)

    @property
    def rate(self) -> float | None:
        """Bytes per second, of all connections together; None until enough was received."""
        with self._lock:
            since, before = self._steps[0]
            # or a stall: then only what came before it is known
            if self._fetched - before < _TELLING_BYTES:
                since, before = 0.0, 0
            received, seconds = self._fetched - before, self._receiving - since
            return received / seconds if received >= _TELLING_BYTES and seconds > 0 else None

    @property
    def plain_rate(self) -> float | None:
        """Bytes per second while no multi-part response ran; None until that tells a rate."""
        with self._lock:
            seconds, size = self._plain.seconds, self._plain.bytes
        return size / seconds if size >= _FORECAST_BYTES and seconds > 0 else None

    @property
    def part_seconds(self) -> float | None:
        """Seconds that each part of a response adds to its bytes' time; None until enough arrived.

        Of all connections together: the work that a host does for a part, as far as it keeps the
        link from its rate.
        """
        rate = self.plain_rate
        with self._lock:
            seconds, size, parts = self._apart.seconds, self._apart.bytes, self._parts
        if rate is None or parts < _TELLING_PARTS:
            return None
        return max(0.0, seconds - size / rate) / parts
