"""Settings of the server: address, encryption, access. Pure."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from zchunked.errors import UsageError
from zchunked.serve.api.policy import Allowed, Clients


@dataclass(frozen=True, slots=True)
class Settings:
    """How to serve.

    `certificate`: files of certificate and key; without them only loopback is served, unless
    `may_be_plain`. `stale`: seconds for which the last answer to a tag is good while its upstream
    is down. `rest_seconds`: without a request, until the store is let go for collections; None:
    never. `store_max`: bytes that it may weigh from then on.
    """

    listen: tuple[str, int] = ("127.0.0.1", 5055)
    certificate: tuple[Path, Path] | None = None
    may_be_plain: bool = False
    allowed: Allowed = field(default_factory=lambda: Allowed(frozenset()))
    upstreams: dict[str, str] = field(default_factory=dict)
    clients: Clients = field(default_factory=Clients)
    stale: float = 3600.0
    prefetch: bool = True
    offline: bool = False
    rest_seconds: float | None = None
    store_max: int | None = None

    @property
    def is_exposed(self) -> bool:
        """Whether other machines reach it without encryption."""
        return self.certificate is None and not is_loopback_address(self.listen[0])

    def check(self) -> None:
        """Raises UsageError for an address that others reach without encryption."""
        if self.is_exposed and not self.may_be_plain:
            raise UsageError(
                f"--listen {self.listen[0]} can be reached by other machines, who would pull with "
                "your credentials, unencrypted; give --tls-cert and --tls-key, or "
                "--insecure-listen if that is what you mean"
            )


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT` or a port alone, which means loopback. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    host = (host.removeprefix("[").removesuffix("]") if colon else "") or "127.0.0.1"
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"invalid --listen: {text!r:.100}; expected HOST:PORT")
    return host, int(port)


def is_loopback_address(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
