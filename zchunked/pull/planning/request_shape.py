"""Shape the requests for a layer: which gaps are bought, how many spans share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from zchunked.download.coalesce import GapPolicy, Link, Run, runs_for
from zchunked.oci.documents import Descriptor
from zchunked.options import GapOptions
from zchunked.pull.layer import LayerTask
from zchunked.pull.planning.estimates import LinkConditions
from zchunked.pull.planning.ways import gap_in_parts
from zchunked.ranges import ByteRange, total

MOVED = 4.0
"""An estimate that has moved by this factor makes another plan."""
_LEAST_PART = 10e-6  # seconds; below that a part costs nothing that matters


def gap_policy(
    options: GapOptions, link: Link, jobs: int, needed: Sequence[ByteRange] = ()
) -> GapPolicy:
    """Which gaps between `needed` spans are bought on this link."""
    singles = link.singles(jobs)
    if options.max_gap is not None:
        return GapPolicy(
            most=options.max_gap, share=float("inf") if options.max_gap else 0.0, singles=singles
        )
    most_in_parts = gap_in_parts(needed, link)
    return GapPolicy(
        max(link.worth_of_request(jobs), most_in_parts),
        singles=singles,
        most_in_parts=most_in_parts,
    )


@dataclass(frozen=True, slots=True)
class RequestShape:
    """What a layer's requests were made for.

    `metadata`: bytes of it that are fetched besides and are needed all the same.

    `part`: seconds that a part was taken to cost.
    """

    policy: GapPolicy
    jobs: int
    spans: int
    metadata: int
    part: float = 0.0

    def runs(self, left: list[ByteRange]) -> list[Run]:
        return runs_for(
            left, policy=self.policy, jobs=self.jobs, spans=self.spans, metadata=self.metadata
        )

    def differ(self, before: RequestShape) -> bool:
        """Whether it differs by so much that other requests are worth it.

        Where many spans share a request, the price of a part counts.
        """
        if self.spans != before.spans:
            return True
        if self.spans > 1:
            low, high = sorted([self.part, before.part])
            return high > max(low, _LEAST_PART) * MOVED
        low, high = sorted([self.policy.most, before.policy.most])
        return high > low * MOVED


def shape_of(
    options: GapOptions, task: LayerTask, conditions: LinkConditions, needed: Sequence[ByteRange]
) -> RequestShape:
    """Shape the requests for what is `needed` of a layer, as link and host are now."""
    vouched = total(task.index.vouched) if task.index and task.way != "whole" else 0
    policy = gap_policy(options, conditions.link, conditions.jobs, needed)
    return RequestShape(
        policy,
        conditions.jobs,
        conditions.spans_per_request(task.layer),
        vouched,
        conditions.link.part,
    )


def early_runs(
    options: GapOptions,
    current: Callable[[], LinkConditions],
    layer: Descriptor,
    left: list[ByteRange],
) -> list[Run]:
    """Requests for what is wanted of a layer that is not planned yet. For any thread."""
    conditions = current()
    policy = gap_policy(options, conditions.link, conditions.jobs, left)
    # One by one, to save part headers, 8 MiB of a layer of 30,000 files took 2,400 requests and 8 s
    policy = replace(policy, singles=0)
    return RequestShape(policy, conditions.jobs, conditions.spans_per_request(layer), 0).runs(left)
