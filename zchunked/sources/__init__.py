"""Sources: where an image's bytes come from. `open_source` picks one for a reference."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.reference import Reference
from zchunked.seams import HostMemory
from zchunked.sources.auth import Auth
from zchunked.sources.credentials import Credentials, Keyring
from zchunked.sources.http import Http
from zchunked.sources.registry import RegistrySource
from zchunked.sources.tls import trust_from
from zchunked.traffic import Traffic


def open_source(
    reference: Reference,
    *,
    environment: Mapping[str, str],
    traffic: Traffic,
    hosts: HostMemory | None = None,
    jobs: int = 8,  # noqa: ARG001 - connections are opened as threads ask for them
    connect_seconds: float = 10.0,
    stall_seconds: float = 10.0,
    plain_http: bool = False,
    tls_verify: bool = True,
    cert_dir: str | Path | None = None,
    authfile: str | Path | None = None,
    credentials: tuple[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> RegistrySource:
    """The source of this reference; close it when done. Nothing is asked or read before its first use."""
    trust = trust_from(environment, verify=tls_verify, cert_dir=Path(cert_dir) if cert_dir else None)
    http = Http(traffic, trust=trust, connect_seconds=connect_seconds, stall_seconds=stall_seconds, limits=limits)
    keyring = Keyring(
        environment,
        authfile=Path(authfile) if authfile else None,
        explicit=Credentials(*credentials) if credentials else None,
    )
    auth = Auth(
        http,
        lambda: keyring.find(reference.host, reference.repository),
        reference.host,
        reference.repository,
        clock=time.monotonic,
        limits=limits,
    )
    return RegistrySource(
        reference,
        http,
        auth,
        hosts=hosts,
        plain_http=plain_http,
        may_be_plain=reference.is_loopback or not tls_verify,
        limits=limits,
    )
