"""Estimate what a pull will cost: by the plans that were made, and by each of the three ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from zchunked.download.coalesce import PART_BYTES, Link
from zchunked.oci.documents import Descriptor
from zchunked.pull.planning.ways import WayCost, WorkCosts, cost_of
from zchunked.ranges import total
from zchunked.receipt import Estimate, Way, WayEstimate

if TYPE_CHECKING:
    from zchunked.pull.layer import LayerTask


@dataclass(frozen=True, slots=True)
class LinkConditions:
    """What a plan may count on: workers, the link, and the spans that one request may have."""

    jobs: int
    link: Link
    spans_per_request: Callable[[Descriptor], int]
    is_free: bool = False  # the source is on this machine
    costs: WorkCosts = field(default_factory=WorkCosts)


def ways_of(
    tasks: Sequence[LayerTask],
    conditions: LinkConditions,
    stored_bytes: int,
    *,
    first_bytes: int,
    first_requests: int,
) -> list[WayEstimate]:
    """Estimate the three ways for the image.

    A layer for which one of them is impossible counts with the way that it takes. `stored_bytes`:
    of TOCs of stored blobs, compressed, that are read for all ways but whole.
    """
    if conditions.is_free:
        return []
    first = conditions.link.seconds(first_bytes, first_requests, conditions.jobs)
    found = []
    has_choice = [task for task in tasks if task.facts.costs]
    reading = conditions.costs.table_byte * stored_bytes if has_choice else 0.0
    for way in get_args(Way):
        costs = [_cost(task, way, conditions) for task in tasks]
        found.append(
            WayEstimate(
                way,
                first_bytes + sum(cost.bytes for cost in costs),
                first_requests + sum(cost.requests for cost in costs),
                round(first + sum(its.seconds for its in costs) + reading * (way != "whole"), 1),
                taken=bool(tasks) and all(task.way == way for task in has_choice),
            )
        )
    if sum(one.taken for one in found) > 1:  # layers that can come whole alone
        for one in found:
            one.taken = one.way == "whole"
    return found


def _cost(task: LayerTask, way: Way, conditions: LinkConditions) -> WayCost:
    runs = task.plan.runs if task.plan is not None else []
    its = {cost.way: cost for cost in task.facts.costs}
    own = its.get(task.way) if task.way is not None else None
    return (
        its.get(way)
        or own
        or cost_of(task.way or "whole", runs, 0.0, conditions.link, conditions.jobs)
    )


def estimate(
    tasks: Sequence[LayerTask], conditions: LinkConditions, *, first_bytes: int, first_requests: int
) -> Estimate:
    """What fetching the plans will cost, after the manifest, which counts as `first_…`."""
    if conditions.is_free:
        return Estimate(0, 0, 0.0)
    runs = [run for task in tasks if task.plan for run in task.plan.runs]
    size = first_bytes + sum(
        total(run) + (len(run) * PART_BYTES if len(run) > 1 else 0) for run in runs
    )
    requests = first_requests + len(runs)
    return Estimate(
        size, requests, round(conditions.link.seconds(size, requests, conditions.jobs), 1)
    )
