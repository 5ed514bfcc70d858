"""Fetch one run of a blob, check its chunks, fetch again what arrived damaged.

From a host without ranges one worker takes the whole blob, for all runs.
"""

from __future__ import annotations

from zchunked.download.blobs.blob_download import BlobDownload
from zchunked.download.coalesce import Run, hull
from zchunked.download.receiver import EnoughError, Receiver, Share, TakenElsewhereError
from zchunked.errors import IntegrityError, RangeIgnoredError
from zchunked.events import Noted
from zchunked.interfaces import Emit
from zchunked.oci.digest import short
from zchunked.ranges import ByteRange
from zchunked.store import Store


class RunFetcher:
    """One per pull; any worker may call its methods."""

    def __init__(
        self,
        receiver: Receiver,
        store: Store,
        emit: Emit,
        share: Share,
    ) -> None:
        self._receiver, self._store = receiver, store
        self._emit, self._share = emit, share

    def run(self, state: BlobDownload, run: Run) -> bool:
        """Fetch a run; False when another worker fetches the whole blob, and this run with it."""
        blob, claim = state.plan.blob.digest, state.arrival.claim
        if claim.is_taken:
            return False
        try:
            self._fetch(state, self._store.missing(blob, run))
        except RangeIgnoredError:
            if not self._claim_whole(state):
                return False
        except TakenElsewhereError:
            return False
        if not claim.is_mine and not self._check(state, run):
            return False
        if claim.is_mine:
            self._finish_whole(state)
        if state.is_record_due:
            state.record(self._store)
        return True

    def _check(self, state: BlobDownload, run: Run) -> bool:
        """Check the chunks of a run, and fetch again what arrived damaged.

        False when another worker fetches the whole blob: that one waits for the checks under way,
        then checks the rest.
        """
        with state.arrival.claim.checking() as may_check:
            if not may_check:
                return False
            try:
                if bad := state.check(self._store, hull(run)):
                    self._refetch(state, bad)
            except TakenElsewhereError:
                return False
        return True

    def _fetch(self, state: BlobDownload, spans: list[ByteRange]) -> None:
        self._receiver.receive(state, spans, self._share, self._takes_more)

    def _takes_more(self, state: BlobDownload) -> bool:
        """Whether the caller, which received more than it requested, fetches the whole blob."""
        blob = state.plan.blob
        if self._store.covers(blob.digest, ByteRange(0, blob.size)):
            raise EnoughError
        return self._claim_whole(state)

    def _claim_whole(self, state: BlobDownload) -> bool:
        """The host serves no ranges: fetch the whole blob, for all runs. False if another does."""
        blob = state.plan.blob
        if not state.may_grow:
            raise RangeIgnoredError(f"the host of layer {short(blob.digest)} serves no ranges")
        if self._store.covers(blob.digest, ByteRange(0, blob.size)):
            return False  # another worker has taken it meanwhile
        if is_new := state.arrival.claim.make():
            state.plan.want_all()
            self._emit(
                Noted(
                    f"the host of layer {short(blob.digest)} serves no ranges: the layer comes "
                    "whole"
                )
            )
        return is_new is not False

    def _finish_whole(self, state: BlobDownload) -> None:
        blob = state.plan.blob
        whole = ByteRange(0, blob.size)
        state.arrival.claim.wait_for_checks()
        self._insist(state, self._store.missing(blob.digest, [whole]))
        if bad := state.check(self._store, whole):
            self._refetch(state, bad)
        state.arrival.watermark.complete_all()
        state.arrival.claim.release()

    def _insist(self, state: BlobDownload, spans: list[ByteRange]) -> None:
        """Fetch spans even from a host without ranges: then the whole blob arrives."""
        try:
            self._fetch(state, spans)
        except RangeIgnoredError:
            if not self._claim_whole(state):
                raise TakenElsewhereError from None
            self._fetch(state, [ByteRange(0, state.plan.blob.size)])

    def _refetch(self, state: BlobDownload, bad: list[int]) -> None:
        """Fetch damaged chunks once more; raises IntegrityError when they are wrong twice."""
        checks, plan = state.plan.checks, state.plan
        spans = [ByteRange(checks.starts[chunk], checks.ends[chunk]) for chunk in bad]
        self._store.report_corruption(plan.blob.digest, spans)
        self._receiver.take_back(plan, state.arrival, spans)
        self._emit(
            Noted(
                f"layer {short(plan.blob.digest)}: {len(bad)} of its chunks came damaged, "
                "fetching again"
            )
        )
        state.uncheck(bad)
        for span in spans:
            self._insist(state, [span])
        for span in spans:
            if still := state.check(self._store, span):
                self._store.report_corruption(plan.blob.digest, [span])
                self._receiver.take_back(plan, state.arrival, [span])
                digest = checks.digests[still[0]].hex()
                raise IntegrityError(
                    f"chunk at {span} of layer {plan.blob.digest}: expected sha256:{digest}, got "
                    "something else twice; the registry's copy is damaged or something on the "
                    "way changes it"
                )
