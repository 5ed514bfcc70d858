"""Plan pulls of one or several images: what each layer would cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.errors import ZPullError
from zchunked.oci.reference import ImageReference
from zchunked.operations.context import Context
from zchunked.operations.pulling import explained, pull_of
from zchunked.pull.layers import Layers
from zchunked.ranges import total
from zchunked.receipt import LayerEntry, Receipt
from zchunked.results import PlannedLayer


def plan(
    context: Context, reference: ImageReference, receipt: Receipt, after: Layers | None = None
) -> tuple[list[PlannedLayer], Layers]:
    """Plan one pull; the receipt gets the estimate. Raises one ZPullError, which has the receipt.

    `after`: of pulls that were planned before; returned with what this one adds.
    """
    with explained(receipt, lambda: 0), closing(context.open(reference)) as origin:
        pull = pull_of(context, origin, receipt)
        tasks = pull.plan(after)
    plans = {str(task.layer.digest): task.plan for task in tasks}
    return [_planned(entry, plans.get(entry.digest)) for entry in receipt.layers], pull.layers


def _planned(entry: LayerEntry, plan: FetchPlan | None) -> PlannedLayer:
    runs = plan.runs if plan else []
    return PlannedLayer(
        entry.digest,
        entry.kind,
        entry.mode,
        entry.size,
        entry.cached_bytes,
        fetch_bytes=sum(total(run) for run in runs),
        gap_bytes=plan.worth([span for run in runs for span in run]).gap if plan else 0,
        requests=len(runs),
        reason=entry.reason,
    )


def plan_all(
    context: Context, references: Sequence[ImageReference]
) -> Iterator[tuple[Receipt, list[PlannedLayer] | ZPullError]]:
    """What `pull_all` would cost, image by image: none counts what one before it fetches."""
    after: Layers | None = None
    for reference in references:
        receipt = Receipt(str(reference))
        try:
            layers, after = plan(context, reference, receipt, after)
        except ZPullError as error:
            yield receipt, error
        else:
            yield receipt, layers
