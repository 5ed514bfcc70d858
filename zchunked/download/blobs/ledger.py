"""Ledger of a transfer: each received byte is booked once, as needed, metadata, gap or waste."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from zchunked.download.blobs.arrival import BlobArrival
from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.ranges import ByteRange, append
from zchunked.receipt import Accounts


@dataclass(slots=True, eq=False)
class Delivery:
    """Bytes of one read: all of them, and the spans of those that were new. For one thread."""

    plan: FetchPlan
    arrival: BlobArrival
    received: int = 0
    fresh: list[ByteRange] = field(default_factory=list)

    def take(self, size: int, new: Sequence[ByteRange]) -> None:
        self.received += size
        for span in new:
            append(self.fresh, span)


class TransferLedger:
    """The deliveries of one pull. Thread-safe."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._lock = threading.Lock()
        self._running: set[Delivery] = set()

    def begin(self, plan: FetchPlan, arrival: BlobArrival) -> Delivery:
        delivery = Delivery(plan, arrival)
        with self._lock:
            self._running.add(delivery)
        return delivery

    def end(self, delivery: Delivery) -> None:
        """Book a delivery, once."""
        plan = delivery.plan
        with self._lock:
            if delivery not in self._running:
                return
            self._running.remove(delivery)
            fresh = list(delivery.fresh)
        delivery.arrival.book(fresh)
        self._accounts.fetched(plan.blob.digest, delivery.received)
        self._accounts.add(plan.blob.digest, plan.worth(fresh))

    def settle(self) -> None:
        """Book what arrived so far of downloads that hang, as their workers may never do it."""
        with self._lock:
            running = list(self._running)
        for delivery in running:
            self.end(delivery)

    def take_back(
        self, plan: FetchPlan, arrival: BlobArrival, spans: Sequence[ByteRange]
    ) -> list[ByteRange]:
        """Book these wrong spans as waste; returns what of them this pull had fetched."""
        taken = arrival.take_back(spans)
        self._accounts.take_back(plan.blob.digest, plan.worth(taken))
        return taken
