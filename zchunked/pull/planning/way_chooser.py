"""Choose the way of a layer, exact, lean or whole, by what each would cost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from zchunked.layers.metadata import LayerIndex
from zchunked.layers.stand_ins import StandIns
from zchunked.options import GapOptions
from zchunked.pull.layer import LayerTask
from zchunked.pull.planning.estimates import LinkConditions
from zchunked.pull.planning.request_shape import MOVED, shape_of
from zchunked.pull.planning.ways import (
    AHEAD,
    Slack,
    WayCost,
    choose,
    cost_of,
    rough_cost,
)
from zchunked.pull.planning.whole import FASTER_WHOLE, why_whole
from zchunked.ranges import ByteRange, merge, ranges, subtract
from zchunked.receipt import Way

_COLD_SHARE = 0.875  # of a layer of which nothing is here: lean has to need less of it than that


@dataclass(frozen=True, slots=True)
class _Need:
    """What is fetched of a blob one way. `ahead`: seconds of `work` left once its TOC is read."""

    way: Way
    spans: list[ByteRange]
    work: float
    ahead: float


class WayChooser:
    """Chooses the ways of an image's layers, one after the other, which share one slack. Pure."""

    def __init__(self, gaps: GapOptions, *, may_take_chunks: bool, is_plan: bool) -> None:
        """As `Planner` takes them."""
        self._gaps, self._is_plan = gaps, is_plan
        self._may_take_chunks = may_take_chunks and not gaps.exact
        self._rates: dict[str, float] = {}  # of the link, when each blob's way was chosen
        self._slack = Slack()

    def begin_image(self) -> None:
        """The next layers are those of another image."""
        self._slack = Slack()

    def choose(
        self,
        task: LayerTask,
        stand_ins: StandIns,
        conditions: LinkConditions,
        here: list[ByteRange],
        planned: Collection[bytes],
        *,
        is_unread: bool = False,
    ) -> None:
        """Compare costs, and settle a way. `planned`: digests of chunks that earlier layers fetch.

        `is_unread`: the pull that is planned will not read its TOC.
        """
        gaps, link = self._gaps, conditions.link
        is_known = any(source != task.layer.digest for source in stand_ins.blobs)
        facts = task.facts
        facts.has_stand_ins = is_known
        # of what an earlier try has brought the frames are known too
        is_new = not facts.here
        facts.is_foreign = is_new and task.known is not None and bool(task.known.payloads)
        if gaps.exact and not self._is_plan:  # nothing to choose
            facts.taken = "exact" if is_known else "whole"
            task.settle_way()
            return
        needs = self._needs_of(task, stand_ins, conditions, here, planned)
        costs = [self._rough(task, need, conditions) for need in needs]
        facts.costs = costs
        if self._is_plan:
            facts.costs = [self._stated(task, need, conditions) for need in needs]
        by_way = {cost.way: cost for cost in costs}
        if gaps.is_metered and "lean" in by_way:
            facts.taken = "lean"
        elif gaps.is_metered or gaps.exact:
            facts.taken = "exact" if is_known else "whole"
        elif self._may_take_chunks and "lean" in by_way:
            facts.taken = min(costs, key=lambda cost: (cost.bytes, cost.way)).way
        elif is_unread:
            facts.taken = "whole"
        else:
            if not is_known:
                lean, plain = by_way.get("lean"), by_way["whole"]
                saves = lean is not None and lean.bytes < plain.bytes * _COLD_SHARE
                costs = [plain, lean] if saves and lean else [plain]
            taken = choose(costs, self._slack, is_rate_known=link.rate is not None)
            facts.taken, self._slack = taken.way, self._slack.after(costs, taken)
        task.settle_way(_why_parts(facts.taken, is_metered=gaps.is_metered))

    def takes_lean(self, task: LayerTask) -> bool:
        """Settle the lean way where the user has chosen it, and it is possible.

        Its frames need not be looked up: 25 MiB and 0.4 s, for a layer of 100,000 files.
        """
        if not self._gaps.is_metered or self._is_plan:
            return False
        if task.index is None or task.index.tarsplit is None:
            return False
        if task.way is None:
            task.facts.taken = "lean"
            task.settle_way(_why_parts("lean", is_metered=True))
        return task.is_lean

    def _needs_of(
        self,
        task: LayerTask,
        stand_ins: StandIns,
        conditions: LinkConditions,
        here: list[ByteRange],
        planned: Collection[bytes],
    ) -> list[_Need]:
        """Exact and whole always, lean where a tar-split makes it possible."""
        index, frames, costs = task.index, task.frames, conditions.costs
        assert index is not None
        whole = subtract([ByteRange(0, task.layer.size)], here)
        missing = subtract(whole, stand_ins.spans())
        hashing = task.layer.size * costs.byte
        looking = (len(frames) if frames is not None else 0) * costs.frame
        needs = [
            _Need("exact", missing, hashing + looking, hashing + looking * AHEAD),
            _Need("whole", whole, hashing, hashing),
        ]
        if index.tarsplit is not None:
            lean = subtract(merge([*_lean_need(task, index, planned), *index.vouched]), here)
            toc = index.toc
            making = len(toc.starts) * costs.chunk + sum(toc.sizes) * costs.tar_byte
            needs.insert(1, _Need("lean", lean, making, making))
        return needs

    def _rough(self, task: LayerTask, need: _Need, conditions: LinkConditions) -> WayCost:
        """The cost that decides: from now on, without making the requests."""
        shape = shape_of(self._gaps, task, conditions, need.spans)
        link, jobs = conditions.link, conditions.jobs
        return rough_cost(need.way, need.spans, need.ahead, link, jobs, shape.spans, shape.policy)

    def _stated(self, task: LayerTask, need: _Need, conditions: LinkConditions) -> WayCost:
        """The cost that a plan states: of the very requests, and of all the work."""
        runs = shape_of(self._gaps, task, conditions, need.spans).runs(need.spans)
        return cost_of(need.way, runs, need.work, conditions.link, conditions.jobs)

    def note_rate(self, task: LayerTask, rate: float | None) -> None:
        """The layer was planned for a link of this rate."""
        if rate is not None:
            self._rates[task.layer.digest] = rate

    def is_too_slow(self, task: LayerTask, conditions: LinkConditions) -> bool:
        """Whether the link is so much slower than assumed that fetching it whole was wrong."""
        taken, rate = self._rates.get(task.layer.digest), conditions.link.rate
        is_by_time = task.way == "whole" and why_whole(task.facts) == FASTER_WHOLE
        return is_by_time and rate is not None and taken is not None and rate * MOVED < taken


def _lean_need(task: LayerTask, index: LayerIndex, planned: Collection[bytes]) -> list[ByteRange]:
    known = task.known.payloads if task.known is not None else set()
    toc = index.toc
    ours = [
        chunk
        for digest, chunk in index.own_chunks().items()
        if digest not in known and digest not in planned
    ]
    starts = [toc.starts[chunk] for chunk in ours]
    return merge(ranges(starts, [toc.ends[chunk] for chunk in ours]))


def _why_parts(way: Way, *, is_metered: bool) -> str | None:
    """The reason on the receipt where parts are not the obvious choice; otherwise None."""
    if way == "exact":
        return "no tar-split is trusted, so the lean way is not possible" if is_metered else None
    return "asked for by --lean or --max-gap 0" if is_metered else "it needs the fewest bytes"
