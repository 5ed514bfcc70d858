"""How to pull: what a person may choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.documents import Platform


@dataclass(frozen=True, slots=True)
class Patience:
    """How much the person is ready to bear. `patience` in seconds; `retries` caps their number, None does not."""

    patience: float = 60.0
    retries: int | None = None


@dataclass(frozen=True, slots=True)
class StallLimits:
    """`deadline` in seconds from the start, `min_rate` in body bytes per second; None sets none."""

    deadline: float | None = None
    min_rate: float | None = None


@dataclass(frozen=True, slots=True)
class GapOptions:
    """`exact`: layers always come whole. `max_gap` in bytes: 0 buys no unneeded one, None leaves it to the plan."""

    exact: bool = False
    max_gap: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """`max_bytes`: refuse a plan above it; `rate`: bytes per second to reckon with, else as measured.

    `seeds`: places on this machine whose files may stand in for chunks. `offline`: refuse a plan that lacks a byte.
    """

    platform: Platform
    jobs: int = 8
    patience: Patience = field(default_factory=Patience)
    bounds: StallLimits = field(default_factory=StallLimits)
    frugality: GapOptions = field(default_factory=GapOptions)
    max_bytes: int | None = None
    rate: float | None = None
    seeds: tuple[Path, ...] = ()
    offline: bool = False
    limits: Limits = DEFAULT_LIMITS
