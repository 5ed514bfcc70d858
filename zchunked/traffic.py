"""Traffic: the one count of requests and body bytes, so that the receipt can agree with the server's own."""

from __future__ import annotations

import threading


class Traffic:
    """What one pull received, whatever became of it: blobs, tokens, redirects and errors alike. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._fetched = self._framing = 0

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
