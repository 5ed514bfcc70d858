"""How to pull: what a person may choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.platform import Platform


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
    """`exact`: layers always come whole. `lean`: the fewest bytes, whatever they cost in requests.

    `max_gap` in bytes: 0 buys no unneeded one, None leaves it to the plan.
    """

    exact: bool = False
    max_gap: int | None = None
    lean: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """`max_bytes`: refuse a plan above it; `rate`: bytes per second to reckon with, else as measured.

    `limit_rate`: bytes per second, over all connections. `seeds`: places on this machine whose files may stand in for
    chunks. `offline`: refuse a plan that lacks a byte.
    """

    platform: Platform
    jobs: int = 8
    patience: Patience = field(default_factory=Patience)
    bounds: StallLimits = field(default_factory=StallLimits)
    frugality: GapOptions = field(default_factory=GapOptions)
    max_bytes: int | None = None
    rate: float | None = None
    limit_rate: float | None = None
    seeds: tuple[Path, ...] = ()
    offline: bool = False
    limits: Limits = DEFAULT_LIMITS

    def link_rate(self, measured: float | None) -> float | None:
        """Bytes per second to reckon with, None where nobody knows."""
        rate = self.rate or measured
        if self.limit_rate is None:
            return rate
        return min(rate or self.limit_rate, self.limit_rate)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach registries and web servers.

    `credentials`: user and password for the host of the reference alone; without them they come from `authfile`, or
    from where podman and docker keep them. `stall_timeout` in seconds: a connection silent for so long is broken.
    """

    authfile: Path | None = None
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    tls_verify: bool = True
    plain_http: bool = False
    cert_dir: Path | None = None
    registries_conf: Path | None = None
    stall_timeout: float | None = None
