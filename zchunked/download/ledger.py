"""Ledger of a transfer: every byte that a source sent is booked once, as needed, metadata, gap or
waste.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from zchunked.download.orders import Order
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, append, merge, subtract
from zchunked.receipt import Accounts


@dataclass(slots=True, eq=False)
class Delivery:
    """One call of a source and what came of it: all bytes, and where those belong that were new.
    For one thread.
    """

    order: Order
    came: int = 0
    fresh: list[ByteRange] = field(default_factory=list)

    def take(self, size: int, new: Sequence[ByteRange]) -> None:
        self.came += size
        for span in new:
            append(self.fresh, span)


class TransferLedger:
    """Those of one pull. Thread-safe."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._lock = threading.Lock()
        self._running: set[Delivery] = set()
        self._came: dict[Digest, list[ByteRange]] = {}

    def begin(self, order: Order) -> Delivery:
        delivery = Delivery(order)
        with self._lock:
            self._running.add(delivery)
        return delivery

    def end(self, delivery: Delivery) -> None:
        """Book it, unless that was done."""
        order = delivery.order
        with self._lock:
            if delivery not in self._running:
                return
            self._running.remove(delivery)
            fresh = list(delivery.fresh)
            self._came.setdefault(order.blob.digest, []).extend(fresh)
        self._accounts.fetched(order.blob.digest, delivery.came)
        self._accounts.add(order.blob.digest, order.worth(fresh))

    def settle(self) -> None:
        """Book what came so far of downloads that hang: their workers may never come back to do
        it.
        """
        with self._lock:
            running = list(self._running)
        for delivery in running:
            self.end(delivery)

    def take_back(self, order: Order, spans: Sequence[ByteRange]) -> list[ByteRange]:
        """What came of these spans was wrong: it becomes waste. Returns what of them this pull had
        brought.
        """
        wrong = merge(spans)
        with self._lock:
            came = merge(self._came.get(order.blob.digest, ()))
            kept = self._came[order.blob.digest] = subtract(came, wrong)
        taken = subtract(came, kept)
        self._accounts.take_back(order.blob.digest, order.worth(taken))
        return taken
