"""Arrival of a blob in one pull: its watermark, what was booked of it, the claim to all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from zchunked.download.blobs.watermark import Watermark
from zchunked.download.blobs.whole_claim import WholeClaim
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, merge, subtract


class BlobArrival:
    """One for all plans of a blob; that of a layer is its task's. Thread-safe."""

    def __init__(
        self, stop: threading.Event, on_arrival: Callable[[], None] = lambda: None
    ) -> None:
        """`on_arrival`: called by a worker when bytes have arrived."""
        self.watermark = Watermark(stop, on_arrival)
        self.claim = WholeClaim(stop)
        self._lock = threading.Lock()
        self._received: list[ByteRange] = []

    def book(self, spans: Sequence[ByteRange]) -> None:
        """These were received, and not taken back yet."""
        with self._lock:
            self._received.extend(spans)

    def take_back(self, spans: Sequence[ByteRange]) -> list[ByteRange]:
        """These were wrong; returns what of them was received."""
        with self._lock:
            received = merge(self._received)
            self._received = subtract(received, merge(spans))
            return subtract(received, self._received)


class Arrivals:
    """Finds the arrival of each blob of a pull. Thread-safe.

    A layer's proof waits for other blobs too: for those whose frames stand in.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._by_blob: dict[Digest, BlobArrival] = {}
        self.on_arrival: Callable[[], None] = lambda: None
        """Called by a worker when bytes have arrived. Set before blobs are asked for."""

    def of(self, blob: Digest) -> BlobArrival:
        with self._lock:
            if (found := self._by_blob.get(blob)) is None:
                found = self._by_blob[blob] = BlobArrival(self._stop, self.on_arrival)
            return found

    def wait_for(self, blob: Digest, end: int) -> None:
        """As `Watermark.wait_for`; at once for a blob that is not fetched."""
        found = self._by_blob.get(blob)
        if found is not None and found.watermark.mark < end:
            found.watermark.wait_for(end)

    def wake(self) -> None:
        """Have the threads that wait look whether the pull has ended."""
        with self._lock:
            arrivals = list(self._by_blob.values())
        for one in arrivals:
            one.watermark.wake()
