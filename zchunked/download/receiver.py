"""Receive spans of a blob into the store, and account for every byte that a source sends."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from zchunked.download.blobs.arrival import BlobArrival
from zchunked.download.blobs.blob_download import BlobDownload
from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.download.blobs.ledger import TransferLedger
from zchunked.download.retries.retry import Stopped
from zchunked.download.retries.retrying_source import RetryingSource
from zchunked.download.writers import Writers
from zchunked.events import Arrived
from zchunked.interfaces import Emit, Pieces
from zchunked.ranges import ByteRange, total
from zchunked.receipt import Accounts
from zchunked.store import Store

_DRAIN_SECONDS = 1.0  # at most: from a fast link more arrives as long as we read
Share = Callable[[BlobDownload, list[ByteRange]], list[ByteRange]]
"""Given what a broken connection left; returns what of it the caller goes on with."""


class EnoughError(Exception):
    """The store has all of a blob that the host is still sending."""


class TakenElsewhereError(Exception):
    """Another worker fetches the whole blob."""


class Receiver:
    """One per pull; any worker may call its methods."""

    def __init__(
        self,
        source: RetryingSource,
        store: Store,
        accounts: Accounts,
        emit: Emit,
        stop: threading.Event,
        can_drain: Callable[[], bool],
    ) -> None:
        """`can_drain`: whether the source only returns received bytes once `stop` is set."""
        self._source, self._emit, self._stop, self._can_drain = source, emit, stop, can_drain
        self._ledger = TransferLedger(accounts)
        self._writers = Writers(store)
        self._drained_by = math.inf
        self.commit_early = self._writers.commit_early
        self.close_own = self._writers.close_own
        self.close = self._writers.close
        self.settle = self._ledger.settle

    def receive(
        self,
        state: BlobDownload,
        spans: list[ByteRange],
        share: Share,
        claim_whole: Callable[[BlobDownload], bool],
    ) -> None:
        """Write the spans, in the calling worker's file.

        `claim_whole` is asked once more arrives than the spans; where it is False,
        TakenElsewhereError is raised, and where it raises EnoughError nothing more is read.
        """
        if not spans:
            return
        plan = state.plan
        writer = self._writers.of(plan.blob)
        delivery = self._ledger.begin(plan, state.arrival)
        asked = ByteRange(spans[0].start, spans[-1].end)

        def keep(pieces: Pieces) -> int:
            is_more = any(at < asked.start or at + len(piece) > asked.end for at, piece in pieces)
            if is_more and not claim_whole(state):
                raise TakenElsewhereError
            new = writer.write_many(pieces)
            size = total(new)
            delivery.take(sum([len(piece) for _, piece in pieces]), new)
            if size:
                self._emit(Arrived(size))
            if state.on_bytes is not None:
                state.on_bytes()
            if self._stop.is_set() and not self._may_drain():
                raise Stopped
            return size

        try:
            with suppress(EnoughError):
                self._source.fetch(plan.blob, spans, keep, lambda left: share(state, left))
        finally:
            self._ledger.end(delivery)

    def _may_drain(self) -> bool:
        """After the stop: whether there is time left to store what was received already."""
        now = time.monotonic()
        self._drained_by = min(self._drained_by, now + _DRAIN_SECONDS)
        return self._can_drain() and now < self._drained_by

    def take_back(self, plan: FetchPlan, arrival: BlobArrival, spans: Sequence[ByteRange]) -> int:
        """Book what arrived of these spans as waste; another source, if any, is asked next.

        Returns how many bytes of them this pull had fetched.
        """
        taken = self._ledger.take_back(plan, arrival, spans)
        self._source.report_corruption(plan.blob.digest, taken)
        return total(taken)
