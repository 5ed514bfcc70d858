"""Estimate what a pull will cost; refuse one that costs more than is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from zchunked.errors import RefusedError
from zchunked.pull.layer import LayerTask
from zchunked.pull.offline import refuse_missing
from zchunked.pull.planning.estimates import estimate, ways_of
from zchunked.pull.session import PullSession


def record_estimate(
    session: PullSession, tasks: Sequence[LayerTask], cost_again: int, stored_bytes: int
) -> None:
    """Write the estimate of these planned layers onto the receipt.

    `cost_again`: bytes of the manifest that the pull asks for too. `stored_bytes`: of TOCs of
    stored blobs, which it reads unless all layers come whole.
    """
    asked, known = int(not session.origin.root), session.conditions
    conditions, receipt = known.now(), session.receipt
    cost = estimate(tasks, conditions, first_bytes=cost_again, first_requests=asked)
    receipt.ways = ways_of(
        tasks, conditions, stored_bytes, first_bytes=cost_again, first_requests=asked
    )
    if cost.bytes and not known.is_rate_known:
        cost.seconds = None
    receipt.estimate = cost


def refuse_plan(session: PullSession, tasks: Sequence[LayerTask]) -> None:
    """Raise RefusedError for plans above the allowed cost; offline, NotFoundError for any."""
    options, receipt, traffic = session.options, session.receipt, session.traffic
    if options.offline:
        refuse_missing(receipt.reference, tasks, session.store)
    most, spent = options.max_bytes, receipt.bytes
    if most is None:
        return
    conditions = session.conditions.now()
    cost = estimate(tasks, conditions, first_bytes=traffic.fetched, first_requests=traffic.requests)
    if cost.bytes > most:
        raise RefusedError(
            f"the pull would fetch {cost.bytes} bytes in {cost.requests} requests, --max-bytes "
            f"allows {most}; {spent.cached} of {spent.image} bytes are here"
        )
    traffic.allow(most)  # an estimate has been kept; from here on it is a promise
