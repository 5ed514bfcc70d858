"""Open a server's endpoint: its connections, trusted certificates, and credentials."""

from __future__ import annotations

import time
from urllib.parse import quote

from zchunked.errors import UsageError
from zchunked.oci.reference import DOCKER_HUB, LayoutReference
from zchunked.sources.auth.credentials import Credentials, Keyring
from zchunked.sources.auth.tokens import Auth, ProtectedRepository
from zchunked.sources.config.registries import Endpoint
from zchunked.sources.http.client import Http
from zchunked.sources.http.connections.sessions import SessionPool
from zchunked.sources.http.connections.tls import trust_from
from zchunked.sources.http.endpoint import RegistryEndpoint, ServerAddress
from zchunked.sources.network import Network

_HUB_API = "registry-1.docker.io"


def registry_endpoint(
    network: Network, end: Endpoint, typed_host: str, scope: str | None = None
) -> RegistryEndpoint:
    """The distribution API of one repository. The caller closes its connections.

    Args:
        network: how servers are reached.
        end: the registry, and the repository's name there.
        typed_host: the host that typed credentials are for; no other sees them.
        scope: as `ProtectedRepository.scope`.
    """
    reference, host = end.reference, end.reference.host
    is_verified = network.tls_verify and not end.is_insecure
    address = ServerAddress(
        reference.name,
        _HUB_API if host == DOCKER_HUB else host,
        f"/v2/{reference.repository}",
        scheme="http" if network.plain_http and not end.is_mirror else None,
        may_be_plain=reference.is_loopback or not is_verified,
    )
    repository = ProtectedRepository(host, reference.repository, host == typed_host, scope)
    return _opened(network, address, repository, verify=is_verified)


def static_endpoint(network: Network, reference: LayoutReference) -> RegistryEndpoint:
    """A web server with a layout's files. The caller closes its connections.

    Raises UsageError for plain http over a network, unless that is allowed.
    """
    scheme = reference.scheme.removeprefix("oci+")
    if scheme == "http" and not (reference.is_loopback or network.plain_http):
        raise UsageError(
            f"{reference.name} would be read unencrypted, and any host on the way could change its "
            "index; use oci+https://, or allow it with --plain-http"
        )
    host, _, path = reference.base.partition("/")
    folder = quote(f"/{path}" if path else "", safe="/%:@!$&'()*+,;=~")
    address = ServerAddress(reference.name, host, folder, scheme=scheme)
    repository = ProtectedRepository(host, path)
    return _opened(network, address, repository, verify=network.tls_verify)


def _opened(
    network: Network, address: ServerAddress, repository: ProtectedRepository, *, verify: bool
) -> RegistryEndpoint:
    host = repository.host
    trust = trust_from(network.environment, verify=verify, cert_dir=network.cert_dir, registry=host)
    http = Http(
        network.traffic,
        sessions=SessionPool(trust, network.traffic.connections),
        connect_seconds=network.connect_seconds,
        stall_seconds=network.stall_seconds,
        environment=network.environment,
        limits=network.limits,
    )
    typed = network.credentials if repository.is_named else None
    explicit = Credentials(*typed) if typed else None
    keyring = Keyring(network.environment, authfile=network.authfile, explicit=explicit)
    auth = Auth(
        http,
        repository,
        lambda: keyring.find(host, repository.repository),
        clock=time.monotonic,
        limits=network.limits,
    )
    return RegistryEndpoint(http, auth, address)
