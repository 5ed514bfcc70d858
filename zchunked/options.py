"""How to pull: what a person may choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci import Platform
from zchunked.pace import Bounds
from zchunked.retry import Patience
from zchunked.schedule import Frugality


@dataclass(frozen=True, slots=True)
class Options:
    """`max_bytes`: refuse a plan above it; `rate`: bytes per second to reckon with, else as measured.

    `seeds`: places on this machine whose files may stand in for chunks. `offline`: refuse a plan that lacks a byte.
    """

    platform: Platform
    jobs: int = 8
    patience: Patience = field(default_factory=Patience)
    bounds: Bounds = field(default_factory=Bounds)
    frugality: Frugality = field(default_factory=Frugality)
    max_bytes: int | None = None
    rate: float | None = None
    seeds: tuple[Path, ...] = ()
    offline: bool = False
    limits: Limits = DEFAULT_LIMITS
