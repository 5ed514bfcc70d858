"""Read what `zpull serve` was given: certificates, hosts and registries.conf, the token's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from zchunked.errors import UsageError
from zchunked.serve.policy import DEFAULT_HOSTS, Allowed, Clients
from zchunked.sources.config.registries_files import registries_from
from zchunked.sources.config.small_files import contents_of


def certificate_of(certificate: str | None, key: str | None) -> tuple[Path, Path] | None:
    """The files for https; None without them. Raises UsageError where one of the two is missing."""
    if bool(certificate) != bool(key):
        raise UsageError("--tls-cert and --tls-key belong together")
    return (Path(certificate), Path(key)) if certificate and key else None


def allowed_of(
    allow: Sequence[str], environment: Mapping[str, str], registries_conf: Path | None
) -> Allowed:
    """The given hosts; otherwise well-known ones and those of registries.conf. UsageError."""
    known = registries_from(environment, told=registries_conf)
    return Allowed.of(allow or [*DEFAULT_HOSTS, *(name for name in known if "*" not in name)])


def clients_of(token_file: str | None) -> Clients:
    """Who knows the file's token; anyone without a file. Raises UsageError."""
    token = contents_of(Path(token_file), "token") if token_file else None
    if token_file and token is None:
        raise UsageError(f"--token {token_file}: there is no such file")
    return Clients.of(None if token is None else token.decode("ascii", "replace"))
