"""Fetch one blob over several connections: whole and proved by its digest, or some spans of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.download.coalesce import Link, missing, runs_for
from zchunked.errors import IntegrityError
from zchunked.events import Noted, Planned
from zchunked.layers.proof import is_intact
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.pull.offline import refuse_lacking
from zchunked.pull.planning.request_shape import gap_policy
from zchunked.pull.transfer import Transfer
from zchunked.ranges import ByteRange, total


def fetch_whole(transfer: Transfer, blob: Descriptor, on_wrong: Callable[[Digest], None]) -> None:
    """Fetch and prove a blob, on the caller's thread. `on_wrong` is called before a second try.

    Raises IntegrityError when it arrived wrong twice, NotFoundError when bytes are missing offline.
    """
    store, options = transfer.store, transfer.options
    whole = [ByteRange(0, blob.size)] if blob.size else []
    for _ in range(2):
        left = missing(whole, store.covered(blob.digest))
        if options.offline:
            refuse_lacking(transfer.origin.name, [(blob, total(left))])
        _fetch(transfer, blob, left, whole)
        if is_intact(store, blob.digest, blob.size):
            store.set_whole(blob.digest, blob.size)
            return
        store.report_corruption(blob.digest, [ByteRange(0, max(blob.size, 1))])
        on_wrong(blob.digest)
        transfer.show(Noted(f"blob {blob.digest} is not what its digest says: dropped"))
    raise IntegrityError(
        f"blob {blob.digest}: its {blob.size} bytes came twice and have another digest"
    )


def fetch_some(transfer: Transfer, blob: Descriptor, spans: Sequence[ByteRange]) -> None:
    """Fetch what is lacking of these spans. Nothing proves them."""
    _fetch(transfer, blob, missing(spans, transfer.store.covered(blob.digest)), list(spans))


def _fetch(
    transfer: Transfer, blob: Descriptor, left: list[ByteRange], wanted: list[ByteRange]
) -> None:
    options, downloader = transfer.options, transfer.downloader
    rate, round_trip = transfer.traffic.rate, transfer.traffic.round_trip
    policy = gap_policy(options.gaps, Link(round_trip, options.link_rate(rate)), options.jobs)
    plan = FetchPlan(blob, runs_for(left, policy=policy, jobs=options.jobs), wanted)
    transfer.show(Planned(blob.size, blob.size - total(left), total(left)))
    downloader.submit(transfer.pool, plan)
    transfer.wait()
    downloader.close()
