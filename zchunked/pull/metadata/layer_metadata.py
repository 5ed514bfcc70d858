"""What is known of a layer's blob before it is planned: its TOC, or why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zchunked.download.fetch_plan import FetchPlan
from zchunked.layers.metadata import LayerIndex
from zchunked.pull.layer import LayerTask
from zchunked.ranges import ByteRange, merge

NOTHING_HERE = "nothing of it is in the store"


@dataclass(slots=True, eq=False)
class LayerMetadata:
    """What a layer's blob holds, or why it comes whole. Filled by one worker while others look.

    `here_before`: bytes of it that were stored before. `index` is set once the TOC is read: then
    chunks can be requested, though the tar-split may still be arriving. `is_complete`: everything
    arrived and was checked, nothing changes any more; until then `in_flight` is being fetched.
    `begun`: plans of chunks that are fetched before the layer's plan; no more are added once
    `index` is set.
    """

    here_before: int = 0
    index: LayerIndex | None = None
    reason: str | None = None
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
        task.index = self.index
        task.here_before = task.entry.cached_bytes = self.here_before
        if self.is_here:
            task.way, task.entry.mode = "whole", "cached"
        elif self.reason is not None:
            task.take_whole(self.reason)


def not_here(here: int) -> str:
    """Why a layer comes whole of which so many bytes are here, from an earlier try."""
    return "the rest of it is not in the store" if here else NOTHING_HERE
