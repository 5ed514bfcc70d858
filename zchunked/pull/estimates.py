"""What a pull will cost: of the orders that were made, and of each of the three ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import get_args

from zchunked.download.coalesce import PART_BYTES, Link
from zchunked.oci.documents import Descriptor
from zchunked.pull.layer import LayerTask
from zchunked.pull.ways import Way, WayCost, WorkCosts, cost_of
from zchunked.ranges import total
from zchunked.receipt import Estimate, WayEstimate


@dataclass(frozen=True, slots=True)
class LinkConditions:
    """What a schedule may count on: workers, the link, and how many spans of a blob one request may
    ask for.
    """

    jobs: int
    link: Link
    spans_per_request: Callable[[Descriptor], int]
    is_free: bool = False  # the source is on this machine
    costs: WorkCosts = field(default_factory=WorkCosts)


def ways_of(
    works: Sequence[LayerTask], means: LinkConditions, *, first_bytes: int, first_requests: int
) -> list[WayEstimate]:
    """The three ways for the image: of a layer that cannot come one of them, what it will cost
    counts.
    """
    if means.is_free:
        return []
    first = means.link.seconds(first_bytes, first_requests, means.jobs)
    found = []
    for way in get_args(Way):
        costs = [_cost(work, way, means) for work in works]
        found.append(
            WayEstimate(
                way,
                first_bytes + sum(cost.bytes for cost in costs),
                first_requests + sum(cost.requests for cost in costs),
                round(first + sum(cost.seconds for cost in costs), 1),
                taken=bool(works) and all(work.way == way or not work.ways for work in works),
            )
        )
    if sum(one.taken for one in found) > 1:  # layers that can come whole alone
        for one in found:
            one.taken = one.way == "whole"
    return found


def _cost(work: LayerTask, way: Way, means: LinkConditions) -> WayCost:
    runs = work.order.runs if work.order is not None else []
    its = {cost.way: cost for cost in work.ways}
    own = its.get(work.way) if work.way is not None else None
    return its.get(way) or own or cost_of(work.way or "whole", runs, 0.0, means.link, means.jobs)


def estimate(
    works: Sequence[LayerTask], means: LinkConditions, *, first_bytes: int, first_requests: int
) -> Estimate:
    """What working the orders off will cost, after the manifest, which counts as `first_…`."""
    if means.is_free:
        return Estimate(0, 0, 0.0)
    runs = [run for work in works if work.order for run in work.order.runs]
    size = first_bytes + sum(
        total(run) + (len(run) * PART_BYTES if len(run) > 1 else 0) for run in runs
    )
    requests = first_requests + len(runs)
    return Estimate(size, requests, round(means.link.seconds(size, requests, means.jobs), 1))
