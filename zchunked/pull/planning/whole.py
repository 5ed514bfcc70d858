"""Decide whether a layer comes whole, and why: every reason there is, in order. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from zchunked.pull.planning.ways import WayCost
from zchunked.receipt import Way

NO_RANGES = "its host serves no ranges"
NOTHING_STORED = "nothing of it is in the store"
REST_NOT_STORED = "the rest of it is not in the store"
FASTER_WHOLE = "takes less time whole than in parts"
OTHER_ENCODER = "what is stored of it was written by another encoder"

TocUse = Literal["useful", "useless", "slow"]
"""Of reading a layer's TOC.

Useless: the store has no frames that could stand in, and the lean way saves next to nothing. Slow:
the whole blob arrives sooner than its frames are looked up.
"""


@dataclass(slots=True)
class LayerFacts:
    """What was found out about a layer that bears on its way; each finder reports its own fact.

    `no_parts`: why its format has no parts; None where it has. `toc`: whether reading its TOC pays.
    `costs`: of the ways that were compared. `taken`: the one that they, or an option, speak for;
    None until it is planned. `here`: bytes of the blob that were stored before this pull.
    `has_stand_ins`: frames of other blobs are its own. `is_foreign`: other blobs have content of
    it, but in other frames.
    """

    has_ranges: bool = True
    no_parts: str | None = None
    toc: TocUse = "useful"
    costs: list[WayCost] = field(default_factory=list)
    taken: Way | None = None
    here: int = 0
    has_stand_ins: bool = False
    is_foreign: bool = False


def why_whole(facts: LayerFacts) -> str | None:
    """Why the layer comes whole, as the receipt says it; None where it comes in parts.

    None too as long as its price is not known, and nothing else decides.
    """
    if not facts.has_ranges:
        return NO_RANGES
    if facts.no_parts is not None:
        return facts.no_parts
    if facts.toc == "slow":
        return FASTER_WHOLE
    if facts.toc == "useful" and facts.taken != "whole":
        return None
    if facts.has_stand_ins:
        return FASTER_WHOLE
    if facts.is_foreign:
        return OTHER_ENCODER
    return REST_NOT_STORED if facts.here else NOTHING_STORED
