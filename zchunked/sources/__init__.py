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
from zchunked.sources.mirrors import Member, MirroredSource
from zchunked.sources.registries import Endpoint, endpoints
from zchunked.sources.registries_files import registries_from
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
    registries_conf: str | Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> RegistrySource | MirroredSource:
    """The source of this reference; close it when done. Nothing is asked before its first use.

    Raises what reading registries.conf raises, and AccessDeniedError for an image that it blocks.
    """
    told = Path(registries_conf) if registries_conf else None
    ends = endpoints(registries_from(environment, told=told), reference)

    keyring = Keyring(environment, authfile=Path(authfile) if authfile else None)

    def source(end: Endpoint) -> RegistrySource:
        host, is_verified = end.reference.host, tls_verify and not end.is_insecure
        trust = trust_from(
            environment, verify=is_verified, cert_dir=Path(cert_dir) if cert_dir else None, registry=host
        )
        http = Http(traffic, trust=trust, connect_seconds=connect_seconds, stall_seconds=stall_seconds, limits=limits)
        is_named = host == reference.host  # what was typed for one host is not for another
        ring = Keyring(environment, explicit=Credentials(*credentials)) if credentials and is_named else keyring
        repository = end.reference.repository
        auth = Auth(
            http,
            lambda: ring.find(host, repository),
            host,
            repository,
            clock=time.monotonic,
            is_named=is_named,
            limits=limits,
        )
        return RegistrySource(
            end.reference,
            http,
            auth,
            hosts=hosts,
            plain_http=plain_http and not end.is_mirror,
            may_be_plain=end.reference.is_loopback or not is_verified,
            limits=limits,
        )

    if len(ends) == 1:
        return source(ends[0])
    return MirroredSource([Member(end.reference.name, source(end), is_mirror=end.is_mirror) for end in ends])
