"""Traffic: the one count of requests and body bytes, so that the receipt can agree with the server's own."""

from __future__ import annotations

import threading

_TELLING_BYTES = 32 << 10  # a shorter body says more of the round trip than of the rate


class Traffic:
    """What one pull received, whatever became of it: blobs, tokens, redirects and errors alike. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._fetched = self._framing = 0
        self._round_trip: float | None = None
        self._rate: float | None = None

    def asked(self) -> None:
        with self._lock:
            self._requests += 1

    def received(self, size: int) -> None:
        with self._lock:
            self._fetched += size

    def framed(self, size: int) -> None:
        """Of what was received, this much only said where the parts of a multi-range answer belong."""
        with self._lock:
            self._framing += size

    @property
    def framing(self) -> int:
        return self._framing

    @property
    def requests(self) -> int:
        return self._requests

    @property
    def fetched(self) -> int:
        """Body bytes, as they came over the wire."""
        return self._fetched

    def answered(self, seconds: float) -> None:
        """An answer began so long after its request was sent; the shortest is taken for the round-trip time."""
        with self._lock:
            self._round_trip = seconds if self._round_trip is None else min(self._round_trip, seconds)

    def carried(self, size: int, seconds: float) -> None:
        """A body of some length took so long. One connection's share of the link, so the best is taken."""
        if size >= _TELLING_BYTES and seconds > 0:
            with self._lock:
                self._rate = max(self._rate or 0.0, size / seconds)

    @property
    def round_trip(self) -> float | None:
        """Seconds; None before the first answer."""
        return self._round_trip

    @property
    def rate(self) -> float | None:
        """Bytes per second; None until a body was long enough to tell."""
        return self._rate
