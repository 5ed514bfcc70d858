"""Read the settings of a server: address, certificate, hosts, registries.conf, the token's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zchunked.errors import UsageError
from zchunked.options import Connection, ServeSettings
from zchunked.serve.api.names import parse_upstreams
from zchunked.serve.api.policy import DEFAULT_HOSTS, Allowed, Clients
from zchunked.serve.settings import Settings, parse_listen
from zchunked.sources.config.registries_files import registries_from
from zchunked.sources.config.small_files import contents_of


def settings_of(
    given: ServeSettings, connection: Connection, environment: Mapping[str, str], *, offline: bool
) -> Settings:
    """Raises UsageError, also for an address that others reach without encryption."""
    settings = Settings(
        parse_listen(given.listen),
        _certificate(given.tls_cert, given.tls_key),
        given.insecure_listen,
        _allowed(given.allow, environment, connection.registries_conf),
        parse_upstreams(given.upstream),
        _clients(given.token),
        given.stale,
        given.prefetch,
        offline,
        rest_seconds=given.rest,
        store_max=given.max_bytes,
    )
    settings.check()
    return settings


def _certificate(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    return (certificate, key) if certificate and key else None


def _allowed(
    allow: tuple[str, ...], environment: Mapping[str, str], registries_conf: Path | None
) -> Allowed:
    """The given hosts; otherwise well-known ones and those of registries.conf. UsageError."""
    known = registries_from(environment, given=registries_conf)
    return Allowed.of(allow or [*DEFAULT_HOSTS, *(name for name in known if "*" not in name)])


def _clients(token_file: Path | None) -> Clients:
    token = contents_of(token_file, "token") if token_file else None
    if token_file and token is None:
        raise UsageError(f"--token {token_file}: there is no such file")
    return Clients.of(None if token is None else token.decode("ascii", "replace"))
