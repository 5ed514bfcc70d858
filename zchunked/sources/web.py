"""Opens what is behind HTTP: connections, trust and credentials for a registry or a static layout."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from zchunked.errors import UsageError
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.reference import LayoutReference, Reference
from zchunked.seams import HostMemory
from zchunked.sources.auth import Auth
from zchunked.sources.credentials import Credentials, Keyring
from zchunked.sources.home import Home
from zchunked.sources.http import Http
from zchunked.sources.layout import Documents, LayoutSource
from zchunked.sources.registry import RegistrySource
from zchunked.sources.static import StaticObjects
from zchunked.sources.tls import trust_from
from zchunked.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Web:
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
    documents: Documents | None = None
    limits: Limits = DEFAULT_LIMITS

    def registry(self, reference: Reference) -> RegistrySource:
        http = self._http()
        return RegistrySource(
            reference,
            http,
            self._auth(http, reference.host, reference.repository),
            hosts=self.hosts,
            plain_http=self.plain_http,
            may_be_plain=reference.is_loopback or not self.tls_verify,
            limits=self.limits,
        )

    def layout(self, reference: LayoutReference) -> LayoutSource:
        """Raises UsageError for plain http over a network, unless that is allowed."""
        scheme = reference.scheme.removeprefix("oci+")
        if scheme == "http" and not (reference.is_loopback or self.plain_http):
            raise UsageError(
                f"{reference.name} would be read unencrypted, and anybody on the way could change its index; "
                f"use oci+https://, or allow it with --plain-http"
            )
        http = self._http()
        host, _, path = reference.base.partition("/")
        folder = quote(f"/{path}" if path else "", safe="/%:@!$&'()*+,;=~")
        auth = self._auth(http, host, path)
        home = Home(http, auth, reference.name, host, folder, scheme=scheme, may_be_plain=False)
        objects = StaticObjects(home, hosts=self.hosts, limits=self.limits)
        return LayoutSource(reference, objects, documents=self.documents, limits=self.limits)

    def _http(self) -> Http:
        trust = trust_from(self.environment, verify=self.tls_verify, cert_dir=self.cert_dir)
        seconds = {"connect_seconds": self.connect_seconds, "stall_seconds": self.stall_seconds}
        return Http(self.traffic, trust=trust, limits=self.limits, **seconds)

    def _auth(self, http: Http, host: str, repository: str) -> Auth:
        keyring = Keyring(
            self.environment,
            authfile=self.authfile,
            explicit=Credentials(*self.credentials) if self.credentials else None,
        )
        look_up = lambda: keyring.find(host, repository)  # noqa: E731
        return Auth(http, look_up, host, repository, clock=time.monotonic, limits=self.limits)
