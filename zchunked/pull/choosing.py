"""Choose the way of a layer, exact, lean or whole, by what each would cost; say why."""

from __future__ import annotations

from collections.abc import Collection

from zchunked.layers.metadata import LayerIndex
from zchunked.layers.stand_ins import StandIns
from zchunked.options import GapOptions
from zchunked.pull.estimates import LinkConditions
from zchunked.pull.layer import LayerTask
from zchunked.pull.request_shape import MOVED, shape_of
from zchunked.pull.ways import (
    AHEAD,
    FASTER_WHOLE,
    Way,
    WayCost,
    choose,
    cost_of,
    is_worth_reading,
    rough_cost,
)
from zchunked.ranges import ByteRange, merge, ranges, subtract, total

_COLD_SHARE = 0.875  # of a layer of which nothing is here: lean has to need less of it than that


class WayChooser:
    """For the layers of a pull, one after the other. Reads nothing, fetches nothing."""

    def __init__(self, gaps: GapOptions, *, may_take_chunks: bool, is_plan: bool) -> None:
        """As `Scheduler` takes them."""
        self._gaps, self._is_plan = gaps, is_plan
        self._may_take_chunks = may_take_chunks and not gaps.exact
        self._rates: dict[str, float] = {}  # of the link, when each blob's way was chosen

    def choose(
        self,
        task: LayerTask,
        stand_ins: StandIns,
        conditions: LinkConditions,
        here: list[ByteRange],
        coming: Collection[bytes],
    ) -> None:
        """Fill `ways`, and take one. `planned`: digests of chunks that earlier layers fetch."""
        gaps, index = self._gaps, task.index
        assert index is not None
        is_known = any(source != task.layer.digest for source in stand_ins.blobs)
        if gaps.exact and not self._is_plan:  # nothing to choose
            task.way = "exact" if is_known else "whole"
            self._explain(task, is_known=is_known)
            return
        task.ways = self._costs_of(task, stand_ins, conditions, here, coming)
        by_way = {cost.way: cost for cost in task.ways}
        link, costs, whole = conditions.link, conditions.costs, task.layer.size - total(here)
        if gaps.is_metered and "lean" in by_way:
            task.way = "lean"
        elif gaps.is_metered or gaps.exact:
            task.way = "exact" if is_known else "whole"
        elif self._may_take_chunks and "lean" in by_way:
            task.way = min(task.ways, key=lambda cost: (cost.bytes, cost.way)).way
        elif (
            is_known
            and self._is_plan
            and not is_worth_reading(index.location.toc.span.size, whole, link, costs)
        ):
            task.way = "whole"  # as the pull will find out before it reads what was read here
        elif is_known:
            task.way = choose(task.ways, is_rate_known=link.rate is not None).way
        else:
            lean, plain = by_way.get("lean"), by_way["whole"]
            saves = lean is not None and lean.bytes < plain.bytes * _COLD_SHARE
            possible = [plain, lean] if saves and lean else [plain]
            task.way = choose(possible, is_rate_known=link.rate is not None).way
        self._explain(task, is_known=is_known)

    def _explain(self, task: LayerTask, *, is_known: bool) -> None:
        task.entry.reason = _why(task, is_known=is_known, is_metered=self._gaps.is_metered)
        if task.way == "whole":
            task.entry.mode = "whole"

    def _costs_of(
        self,
        task: LayerTask,
        stand_ins: StandIns,
        conditions: LinkConditions,
        here: list[ByteRange],
        coming: Collection[bytes],
    ) -> list[WayCost]:
        """Exact and whole always, lean where a tar-split makes it possible."""
        index, frames = task.index, task.frames
        assert index is not None
        link, jobs, costs = conditions.link, conditions.jobs, conditions.costs
        whole = subtract([ByteRange(0, task.layer.size)], here)
        missing = subtract(whole, stand_ins.spans())
        hashing = task.layer.size * costs.byte
        count = len(frames) if frames is not None else 0

        def cost(way: Way, needed: list[ByteRange], work_seconds: float) -> WayCost:
            shape = shape_of(self._gaps, task, conditions, needed)
            if self._is_plan:
                return cost_of(way, shape.runs(needed), work_seconds, link, jobs)
            return rough_cost(way, needed, work_seconds, link, jobs, shape.spans, shape.policy)

        made = [
            cost(
                "exact", missing, hashing + count * costs.frame * (1.0 if self._is_plan else AHEAD)
            ),
            cost("whole", whole, hashing),
        ]
        if index.tarsplit is not None:
            need = subtract(merge([*_lean_need(task, index, coming), *index.vouched]), here)
            making = len(index.toc.starts) * costs.chunk + sum(index.toc.sizes) * costs.tar_byte
            made.insert(1, cost("lean", need, making))
        return made

    def note_rate(self, task: LayerTask, rate: float | None) -> None:
        """The layer was planned for a link of this rate."""
        if rate is not None:
            self._rates[task.layer.digest] = rate

    def is_too_slow(self, task: LayerTask, conditions: LinkConditions) -> bool:
        """Whether the link is so much slower than assumed that fetching it whole was wrong."""
        taken, rate = self._rates.get(task.layer.digest), conditions.link.rate
        is_by_time = task.way == "whole" and task.entry.reason == FASTER_WHOLE
        return is_by_time and rate is not None and taken is not None and rate * MOVED < taken


def _lean_need(task: LayerTask, index: LayerIndex, coming: Collection[bytes]) -> list[ByteRange]:
    known = task.known.payloads if task.known is not None else set()
    toc = index.toc
    ours = [
        chunk
        for digest, chunk in index.own_chunks().items()
        if digest not in known and digest not in coming
    ]
    starts = [toc.starts[chunk] for chunk in ours]
    return merge(ranges(starts, [toc.ends[chunk] for chunk in ours]))


def _why(task: LayerTask, *, is_known: bool, is_metered: bool) -> str | None:
    """The reason on the receipt where the way is not the obvious one; otherwise None."""
    if task.way == "exact":
        return "no tar-split is trusted, so the lean way is not possible" if is_metered else None
    if task.way == "lean":
        return "asked for by --lean or --max-gap 0" if is_metered else "it needs the fewest bytes"
    if is_known:
        return FASTER_WHOLE
    is_foreign = task.known is not None and bool(task.known.payloads)
    return (
        "what is stored of it was written by another encoder"
        if is_foreign
        else "nothing of it is in the store"
    )
