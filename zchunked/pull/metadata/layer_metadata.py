"""What is known of a layer's blob before it is planned: its TOC, and facts about its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.layers.metadata import LayerIndex
from zchunked.pull.layer import LayerTask
from zchunked.pull.planning.whole import LayerFacts
from zchunked.ranges import ByteRange, merge


@dataclass(slots=True, eq=False)
class LayerMetadata:
    """What a layer's blob holds. Filled by one worker while others look.

    `facts.here`: bytes of it that were stored before. `index` is set once the TOC is read: then
    chunks can be requested, though the tar-split may still be arriving. `is_complete`: everything
    arrived and was checked, nothing changes any more; until then `in_flight` is being fetched.
    `begun`: plans of chunks that are fetched before the layer's plan; no more are added once
    `index` is set.
    """

    facts: LayerFacts = field(default_factory=LayerFacts)
    index: LayerIndex | None = None
    is_here: bool = False
    is_complete: bool = False
    in_flight: Sequence[ByteRange] = ()
    begun: list[FetchPlan] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        """Whether nothing of the layer is being fetched that its plan does not know of."""
        return self.is_complete and not self.begun

    def in_flight_spans(self) -> list[ByteRange]:
        """What is being fetched, or was just now."""
        plans = [span for plan in list(self.begun) for run in plan.runs for span in run]
        return merge([*plans, *(() if self.is_complete else self.in_flight)])

    def describe(self, task: LayerTask) -> None:
        """Tell the task, which is understood then."""
        task.index, task.facts = self.index, self.facts
        task.here_before = task.entry.cached_bytes = self.facts.here
        if self.is_here:
            task.way, task.entry.mode = "whole", "cached"
        else:
            task.settle_way()
