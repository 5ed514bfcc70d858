"""How servers are reached: timeouts, certificates, credentials, proxies, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.sources.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Network:
    """`Connection` of the options says what the fields of its names mean.

    `traffic` counts what goes over it; `environment` names proxies, CA bundles and places of
    credentials. One connect may last `connect_seconds`, and one silence `stall_seconds`.
    """

    traffic: Traffic
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_seconds: float = 10.0
    stall_seconds: float = 10.0
    plain_http: bool = False
    tls_verify: bool = True
    cert_dir: Path | None = None
    authfile: Path | None = None
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    registries_conf: Path | None = None
    limits: Limits = DEFAULT_LIMITS
