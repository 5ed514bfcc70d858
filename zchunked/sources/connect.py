"""Opens what is behind HTTP: connections, trust and credentials for a registry or a static layout."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from zchunked.errors import UsageError
from zchunked.interfaces import HostMemory
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.reference import LayoutReference, Reference
from zchunked.sources.auth.credentials import Credentials, Keyring
from zchunked.sources.auth.tokens import Auth
from zchunked.sources.config.registries import Endpoint, endpoints
from zchunked.sources.config.registries_files import registries_from
from zchunked.sources.http.client import Http
from zchunked.sources.http.endpoint import RegistryEndpoint
from zchunked.sources.http.tls import trust_from
from zchunked.sources.layout import Documents, LayoutSource
from zchunked.sources.mirrors import Member, MirroredSource
from zchunked.sources.objects.web import StaticObjects
from zchunked.sources.registry import RegistrySource, registry_endpoint
from zchunked.sources.registry_upload import RegistryUploads
from zchunked.sources.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Connector:
    """How to go there, as `open_source` is told."""

    environment: Mapping[str, str]
    traffic: Traffic
    hosts: HostMemory | None = None
    connect_seconds: float = 10.0
    stall_seconds: float = 10.0
    plain_http: bool = False
    tls_verify: bool = True
    cert_dir: Path | None = None
    authfile: Path | None = None
    credentials: tuple[str, str] | None = None
    registries_conf: Path | None = None
    documents: Documents | None = None
    limits: Limits = DEFAULT_LIMITS

    def registry(self, reference: Reference) -> RegistrySource | MirroredSource:
        """The registry itself, or the mirrors in front of it too; wherever registries.conf says that they are."""
        ends = endpoints(registries_from(self.environment, told=self.registries_conf), reference)
        found = Keyring(self.environment, authfile=self.authfile)
        typed = Keyring(self.environment, explicit=Credentials(*self.credentials)) if self.credentials else found

        def source(end: Endpoint) -> RegistrySource:
            host, is_verified = end.reference.host, self.tls_verify and not end.is_insecure
            is_named = host == reference.host  # what was typed for one host is not for another
            http = self._http(host, verify=is_verified)
            return RegistrySource(
                end.reference,
                http,
                self._auth(http, typed if is_named else found, host, end.reference.repository, is_named=is_named),
                hosts=self.hosts,
                plain_http=self.plain_http and not end.is_mirror,
                may_be_plain=end.reference.is_loopback or not is_verified,
                limits=self.limits,
            )

        if len(ends) == 1:
            return source(ends[0])
        return MirroredSource([Member(end.reference.name, source(end), is_mirror=end.is_mirror) for end in ends])

    def uploads(self, reference: Reference, mount_from: Sequence[str] = ()) -> RegistryUploads:
        """The write side of the registry itself, whatever mirrors are in front of it. `mount_from`: repositories of
        the same registry that blobs may be mounted from.
        """
        end = endpoints(registries_from(self.environment, told=self.registries_conf), reference)[-1]
        host, repository, is_verified = (
            end.reference.host,
            end.reference.repository,
            self.tls_verify and not end.is_insecure,
        )
        explicit = Credentials(*self.credentials) if self.credentials and host == reference.host else None
        keyring = Keyring(self.environment, authfile=self.authfile, explicit=explicit)
        http = self._http(host, verify=is_verified)
        scope = [f"repository:{repository}:pull,push", *(f"repository:{one}:pull" for one in mount_from)]
        is_named = host == reference.host
        auth = self._auth(http, keyring, host, repository, is_named=is_named, scope=" ".join(scope))
        return RegistryUploads(
            registry_endpoint(
                end.reference,
                http,
                auth,
                plain_http=self.plain_http,
                may_be_plain=end.reference.is_loopback or not is_verified,
            ),
            self.limits,
        )

    def layout(self, reference: LayoutReference) -> LayoutSource:
        """Raises UsageError for plain http over a network, unless that is allowed."""
        scheme = reference.scheme.removeprefix("oci+")
        if scheme == "http" and not (reference.is_loopback or self.plain_http):
            raise UsageError(
                f"{reference.name} would be read unencrypted, and anybody on the way could change its index; "
                f"use oci+https://, or allow it with --plain-http"
            )
        host, _, path = reference.base.partition("/")
        http = self._http(host, verify=self.tls_verify)
        folder = quote(f"/{path}" if path else "", safe="/%:@!$&'()*+,;=~")
        explicit = Credentials(*self.credentials) if self.credentials else None
        auth = self._auth(http, Keyring(self.environment, authfile=self.authfile, explicit=explicit), host, path)
        home = RegistryEndpoint(http, auth, reference.name, host, folder, scheme=scheme, may_be_plain=False)
        objects = StaticObjects(home, hosts=self.hosts, limits=self.limits)
        return LayoutSource(reference, objects, documents=self.documents, limits=self.limits)

    def _http(self, host: str, *, verify: bool) -> Http:
        trust = trust_from(self.environment, verify=verify, cert_dir=self.cert_dir, registry=host)
        seconds = {"connect_seconds": self.connect_seconds, "stall_seconds": self.stall_seconds}
        return Http(self.traffic, trust=trust, environment=self.environment, limits=self.limits, **seconds)

    def _auth(
        self,
        http: Http,
        keyring: Keyring,
        host: str,
        repository: str,
        *,
        is_named: bool = True,
        scope: str | None = None,
    ) -> Auth:
        look_up = lambda: keyring.find(host, repository)  # noqa: E731
        clock = time.monotonic
        return Auth(http, look_up, host, repository, clock=clock, is_named=is_named, scope=scope, limits=self.limits)
