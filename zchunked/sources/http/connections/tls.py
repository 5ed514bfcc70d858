"""TLS certificates to trust, for each host, in the directories of the container tools."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from zchunked.errors import LocalError
from zchunked.local.paths import is_folder, is_there

_SYSTEM_CERTS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


class Trust(Struct, frozen=True):
    """`cert_dir` is used for every host; in `certs_d` each host has its own directory, `host:port`.

    `registry_host`: what vouches for it may also vouch for hosts that it sends us to.
    """

    verify: bool = True
    bundle: Path | None = None
    cert_dir: Path | None = None
    certs_d: tuple[Path, ...] = _SYSTEM_CERTS
    registry_host: str = ""


def trust_from(
    environment: Mapping[str, str],
    *,
    verify: bool = True,
    cert_dir: Path | None = None,
    registry: str = "",
) -> Trust:
    """SSL_CERT_FILE and SSL_CERT_DIR need no help: OpenSSL reads them itself."""
    bundle = environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE")
    config = environment.get("XDG_CONFIG_HOME") or (
        f"{registry_host}/.config" if (registry_host := environment.get("HOME")) else ""
    )
    own = (Path(config, "containers", "certs.d"),) if config else ()
    return Trust(verify, Path(bundle) if bundle else None, cert_dir, own + _SYSTEM_CERTS, registry)


class Contexts:
    """One SSL context for each host, made when first asked for. Thread-safe."""

    def __init__(self, trust: Trust, fallback: str) -> None:
        """`fallback` names a bundle of CA certificates for machines that have none."""
        self._trust, self._fallback = trust, fallback
        self._lock = threading.Lock()
        self._made: dict[tuple[Path | None, bool], ssl.SSLContext] = {}

    def of(self, host: str) -> ssl.SSLContext:
        """`host` as `host[:port]`. Raises LocalError when certificates cannot be read."""
        directory = self._directory(host)
        is_own = directory is not None
        if directory is None and self._trust.registry_host:
            # its token server often has a certificate of the same CA
            directory = self._directory(self._trust.registry_host)
        key = directory, is_own
        with self._lock:
            if key not in self._made:
                try:
                    self._made[key] = self._make(directory, shows_ours=is_own)
                except (OSError, ssl.SSLError) as error:
                    where = directory or self._trust.bundle or "the system's CA store"
                    raise LocalError(f"cannot read the certificates of {where}: {error}") from error
            return self._made[key]

    def _directory(self, host: str) -> Path | None:
        if self._trust.cert_dir is not None:
            return self._trust.cert_dir
        for root in self._trust.certs_d:
            try:
                if is_folder(root / host):
                    return root / host
            except OSError:  # not ours to look into
                continue
        return None

    def _make(self, directory: Path | None, *, shows_ours: bool) -> ssl.SSLContext:
        """`shows_ours`: the certificates with a key are for this host to see."""
        context = ssl.create_default_context(
            cafile=str(self._trust.bundle) if self._trust.bundle else None
        )
        # Python 3.13 refuses a CA without key usage, as many private ones are; the container tools
        # do not.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self._trust.bundle is None and not _has_system_store():
            context.load_verify_locations(self._fallback)
        if not self._trust.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for file in sorted(directory.iterdir()) if directory else ():
            if file.suffix == ".crt":
                context.load_verify_locations(file)
            elif file.suffix == ".cert" and shows_ours:
                if not is_there(key := file.with_suffix(".key")):
                    raise LocalError(
                        f"{file} lacks its key, {key.name}; a CA's certificate is to end in .crt"
                    )
                context.load_cert_chain(file, key)
            elif file.suffix == ".key" and not is_there(file.with_suffix(".cert")):
                raise LocalError(f"{file} lacks its certificate, {file.stem}.cert")
        return context


def _has_system_store() -> bool:
    """A slim container may have no CA certificates at all."""
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile) or bool(paths.capath and any(Path(paths.capath).iterdir()))
