"""Choose the ways of an image's layers, exact, lean or whole, by bytes and seconds. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from zchunked.download.coalesce import PART_BYTES, GapPolicy, Link, Run
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, total
from zchunked.receipt import Way

_LONG = 4 << 20  # bytes of one request
_USUAL_RATE = 12.5e6  # bytes per second, of a link that was not measured yet
AHEAD = 0.35  # of a frame's price: once its TOC is read and looked up, which took the rest
TOC_BYTES = 27
"""Compressed, of a frame: about what a table of 100,000 files has."""
_GAPS = (PART_BYTES, 512, 2 << 10, 8 << 10, 32 << 10, 128 << 10, 512 << 10)  # bytes
# Than the fastest way, and seconds more once an image, is what fewer bytes are worth
_SLOWER, _LATER = 1.25, 0.5
_LEAN_GAIN, _LEAN_SECONDS = 0.95, 0.1  # the registry's own blob is given up for no less


@dataclass(frozen=True, slots=True)
class WorkCosts:
    """What this machine needs, in seconds of one core: measured, and remembered from pull to pull.

    `frame`: to look up, fetch and assemble one frame, the exact way. `chunk`: to fetch, check and
    decode one, the lean way. `byte`: to write and hash a byte of a blob. `tar_byte`: to make and
    hash one of a tar. `table_byte`: to read one of the TOC of a stored blob, compressed.
    """

    frame: float = 20e-6
    chunk: float = 40e-6
    byte: float = 1.6e-9
    tar_byte: float = 2.5e-9
    table_byte: float = 0.25e-6


@dataclass(frozen=True, slots=True)
class WayCost:
    """One way for one layer, from now on. `seconds` is an estimate."""

    way: Way
    bytes: int
    requests: int
    seconds: float


def cost_of(way: Way, runs: Sequence[Run], work: float, link: Link, jobs: int) -> WayCost:
    """`work`: seconds of this machine, beside the transfer or behind it."""
    parts = sum([len(run) for run in runs if len(run) > 1])
    size = sum(map(total, runs)) + parts * PART_BYTES
    return _cost(way, size, len(runs), parts, work, link, jobs)


def rough_cost(
    way: Way,
    needed: Sequence[ByteRange],
    work: float,
    link: Link,
    jobs: int,
    spans: int,
    policy: GapPolicy,
) -> WayCost:
    """Estimate a way without making its requests; the host takes so many `spans` in one."""
    size, parts = total(needed), len(needed)
    most, budget = (
        (policy.most_in_parts, math.inf) if spans > 1 else (policy.most, size * policy.share)
    )
    gaps = [
        gap
        for before, after in pairwise(needed)
        if (gap := after.start - before.end) <= min(most, policy.most)
    ]
    if sum(gaps) > budget:
        gaps.sort()
        gaps = gaps[: bisect_right(list(accumulate(gaps)), budget)]
    size += sum(gaps)
    parts -= len(gaps)
    if spans > 1:
        requests = max(-(-parts // spans), -(-size // _LONG))
        size += parts * PART_BYTES if parts > 1 else 0
    else:
        requests, parts = max(parts, -(-size // _LONG)), 0
    return _cost(way, size, requests if needed else 0, parts, work, link, jobs)


@dataclass(frozen=True, slots=True)
class LackingLayer:
    """Missing bytes of its blob; bytes of its TOC, compressed, None where that is not known."""

    blob_bytes: int
    toc_bytes: int | None


def worth_reading(
    layers: Mapping[Digest, LackingLayer], stored_bytes: int, link: Link, costs: WorkCosts
) -> set[Digest]:
    """The layers of an image whose TOCs are worth reading: others come whole.

    None is where the missing bytes arrive sooner than frames are looked up: 0.8 s against 3.3 s,
    for some 100,000 files and 200 MB over loopback. Otherwise all are; or, where that takes more
    than the image's slack, those whose own blobs take as long. `stored_bytes`: of TOCs of stored
    blobs, compressed, which are read if any of these is.
    """
    rate, stored = link.rate, stored_bytes * costs.table_byte
    has_table = {one for one, layer in layers.items() if layer.toc_bytes is not None}
    if rate is None:
        return has_table
    whole = {
        one: max(layer.blob_bytes / rate, layer.blob_bytes * costs.byte)
        for one, layer in layers.items()
    }
    reading = {one: (layers[one].toc_bytes or 0) / TOC_BYTES * costs.frame for one in has_table}
    bound = Slack().bound(sum(whole.values()))
    for some in (has_table, {one for one in has_table if reading[one] <= whole[one] * _SLOWER}):
        if stored + sum((reading if one in some else whole)[one] for one in layers) <= bound:
            return some
    return set()


def seconds_for_others(missing: int, toc_bytes: int, link: Link, costs: WorkCosts) -> float:
    """What may be spent on stored tables beside those of `toc_bytes`, which are read anyway.

    A quarter of what the `missing` bytes of the image take, and half a second. To read all of a
    hundred that fast cold pulls had left took a minute, with 4 s of download behind it.
    """
    whole = missing / (link.rate or _USUAL_RATE)
    return max(0.0, Slack().bound(whole) - whole - toc_bytes * costs.table_byte)


def gap_in_parts(needed: Sequence[ByteRange], link: Link) -> int:
    """The longest gap to buy between spans that share a request, where each part costs host time.

    No gap but those that are shorter than a part's header costs fewer bytes bought than left; of
    longer ones as many are bought as the same rule asks for by which a way is chosen.
    """
    rate = link.rate or _USUAL_RATE
    if link.part * len(needed) <= _LATER:
        return PART_BYTES
    size, parts = total(needed), len(needed)
    gaps = sorted(after.start - before.end for before, after in pairwise(needed))
    sums = [0, *accumulate(gaps)]
    found: list[tuple[float, int]] = []  # seconds, and the longest gap bought; ascending by bytes
    for most in _GAPS:
        bought = bisect_right(gaps, most)
        left = parts - bought
        found.append(((size + sums[bought] + left * PART_BYTES) / rate + left * link.part, most))
    bound = min(found)[0] * _SLOWER + _LATER
    return next(most for seconds, most in found if seconds <= bound)


def _cost(
    way: Way, size: int, requests: int, parts: int, work: float, link: Link, jobs: int
) -> WayCost:
    waiting = (link.round_trip or 0.0) * -(-requests // jobs) + parts * link.part
    transfer = size / (link.rate or _USUAL_RATE) + waiting if requests else 0.0
    return WayCost(way, size, requests, max(transfer, work) + min(transfer, work) / 4)


@dataclass(frozen=True, slots=True)
class Slack:
    """Seconds left by which an image may be later than by the fastest way of each layer."""

    seconds: float = field(default_factory=lambda: _LATER)

    def bound(self, fastest: float) -> float:
        """Seconds that may be taken where the fastest way takes so many."""
        return fastest * _SLOWER + self.seconds

    def after(self, costs: Sequence[WayCost], taken: WayCost) -> Slack:
        """Once a layer comes the way that was `taken` among these."""
        fastest = min(cost.seconds for cost in costs if cost.way != "lean" or cost == taken)
        return Slack(max(self.bound(fastest) - taken.seconds, 0.0))


def choose(costs: Sequence[WayCost], slack: Slack, *, is_rate_known: bool) -> WayCost:
    """The way to take among those that are possible.

    Of exact and whole the one with the fewest bytes that is not much slower than the other. Lean,
    where its fewer bytes also save time: it ends with other bytes than the registry's, which is
    not worth a trifle.
    """
    same = [cost for cost in costs if cost.way != "lean"]
    lean = next((cost for cost in costs if cost.way == "lean"), None)
    if not same:
        assert lean is not None
        return lean
    bound = slack.bound(min(cost.seconds for cost in same))
    best = min(
        (cost for cost in same if cost.seconds <= bound),
        key=lambda cost: (cost.bytes, cost.seconds),
    )
    if lean is None or not is_rate_known or lean.bytes >= best.bytes:
        return best
    is_faster = (
        lean.seconds <= best.seconds * _LEAN_GAIN and lean.seconds <= best.seconds - _LEAN_SECONDS
    )
    return lean if is_faster else best
