"""Find credentials where the container tools keep them. Nothing here is ever printed."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from zchunked.errors import LocalError
from zchunked.oci.reference import DOCKER_HUB
from zchunked.sources.auth.helpers import HelperError, HungHelperError, ask_helper
from zchunked.sources.config.small_files import check_authfile, contents_of

_HUB_ALIASES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_HUB_KEY = "https://index.docker.io/v1/"  # under which docker itself files Docker Hub
_TOKEN_USER = "<token>"  # noqa: S105 - the user name by which helpers say that the secret is an identity token
_Shape = TypeVar("_Shape")


class Credentials(msgspec.Struct, frozen=True):
    """What a person may show a registry: user and password, or one of two kinds of tokens."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    """To be traded for access tokens at the token endpoint."""
    registry_token: str = ""
    """To be shown to the registry as it is."""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, …)"


class _Entry(msgspec.Struct):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class _File(msgspec.Struct):
    auths: dict[str, _Entry | None] | None = None  # null: no entry, as all Go clients read it
    credHelpers: dict[str, str] | None = None  # noqa: N815 - as the files spell it
    credsStore: str | None = None  # noqa: N815


_FILE, _ENTRIES = msgspec.json.Decoder(_File), msgspec.json.Decoder(dict[str, _Entry | None])


class _CredentialsFile(msgspec.Struct, frozen=True):
    path: Path
    is_legacy: bool = False
    """A bare map of entries, as ~/.dockercfg is."""


class Keyring:
    """Looks up credentials for a repository. Reads files anew for each look. Thread-safe.

    A helper that hung once is not waited for again: many hosts may have the same one.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        authfile: Path | None = None,
        explicit: Credentials | None = None,
        helper_seconds: float = 30.0,
    ) -> None:
        self._environment = environment
        self._authfile = authfile
        self._explicit = explicit
        self._helper_seconds = helper_seconds
        self._hung: dict[str, str] = {}

    def find(self, host: str, repository: str) -> Credentials | None:
        """The credentials, or None. UsageError or LocalError names a file that is unusable.

        HelperError, of the first helper that failed, when no other place has any.
        """
        if self._explicit is not None:
            return self._explicit
        self.check()
        failure: HelperError | None = None
        for place in self._places():
            try:
                found = self._look(place, host.lower(), repository)
            except HelperError as error:
                failure = failure or error
                continue
            if found is not None:
                return found
        if failure is not None:
            raise failure
        return None

    def check(self) -> None:
        """Raises UsageError or LocalError for a file that a person named and that is no use."""
        if self._authfile is not None:
            check_authfile(self._authfile)

    def _places(self) -> Iterator[_CredentialsFile]:
        given = self._authfile or self._environment.get("REGISTRY_AUTH_FILE")
        if given:
            yield _CredentialsFile(Path(given))
            return
        home = self._environment.get("HOME", "")
        runtime = self._environment.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
        config = self._environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
        docker = self._environment.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
        yield _CredentialsFile(Path(runtime, "containers/auth.json"))
        if config:
            yield _CredentialsFile(Path(config, "containers/auth.json"))
        if docker:
            yield _CredentialsFile(Path(docker, "config.json"))
        if home:
            yield _CredentialsFile(Path(home, ".dockercfg"), is_legacy=True)

    def _look(self, place: _CredentialsFile, host: str, repository: str) -> Credentials | None:
        """Look into one file: the host's own helper, its entry, the helper for all hosts."""
        data = contents_of(place.path, "file of credentials")
        if data is None:
            return None
        if place.is_legacy:
            file = _File(auths=_decode(data, _ENTRIES, place.path))
        else:
            file = _decode(data, _FILE, place.path)
        for key, helper in (file.credHelpers or {}).items():
            if normalised(key)[0] == normalised(host)[0] and not normalised(key)[1]:
                return self._ask(helper, [key], place.path)
        entries = {key: entry for key, entry in (file.auths or {}).items() if entry is not None}
        best = most_specific(entries, host, repository)
        if best is not None and (
            found := _credentials(entries[best], f"{place.path}: the entry {best!r:.200}")
        ):
            return found
        if file.credsStore:
            names = [best] if best is not None else []
            names += [_HUB_KEY, DOCKER_HUB] if host in _HUB_ALIASES else [host]
            return self._ask(file.credsStore, list(dict.fromkeys(names)), place.path)
        return None

    def _ask(self, helper: str, servers: list[str], path: Path) -> Credentials | None:
        for server in servers:
            if helper in self._hung:
                raise HungHelperError(self._hung[helper])
            try:
                secret = ask_helper(
                    helper, server, str(path), self._environment, self._helper_seconds
                )
            except HungHelperError as error:
                self._hung[helper] = str(error)
                raise
            if secret is not None and secret.Username == _TOKEN_USER:
                return Credentials(identity_token=secret.Secret)
            if secret is not None:
                return Credentials(secret.Username, secret.Secret)
        return None


def normalised(key: str) -> tuple[str, str]:
    """Host and repository prefix of an entry's key. A key with a scheme is for its whole host."""
    bare = key.removeprefix("https://").removeprefix("http://")
    host, _, path = bare.partition("/")
    path = path.strip("/")
    if bare != key or path in ("v1", "v2"):
        path = ""
    host = host.lower()
    return (DOCKER_HUB if host in _HUB_ALIASES else host), path


def most_specific(keys: Iterable[str], host: str, repository: str) -> str | None:
    """The key of this host with the longest prefix of the repository, in whole components."""
    wanted = normalised(host)[0]
    best: tuple[int, bool] | None = None
    chosen = None
    for key in keys:
        found, path = normalised(key)
        if found == wanted and (not path or f"{repository}/".startswith(f"{path}/")):
            rank = (len(path), key == host)  # of two spellings of one host, the plain one
            if best is None or rank > best:
                best, chosen = rank, key
    return chosen


def _decode(data: bytes, decoder: msgspec.json.Decoder[_Shape], path: Path) -> _Shape:
    try:
        # podman and others leave empty files behind
        return decoder.decode(data if data.strip() else b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # What msgspec says names places, never contents; its cause may hold some, so it is not
        # chained.
        raise LocalError(f"invalid file of credentials {path}: {str(error)[:200]}") from None


def _credentials(entry: _Entry, what: str) -> Credentials | None:
    """Parse an entry; None when it is empty, which means: ask the store."""
    username, password = entry.username or "", entry.password or ""
    if entry.auth:
        try:
            bare = "".join(entry.auth.split())  # `base64` without -w0 wraps its lines
            text = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise LocalError(f"{what}: `auth` is not user:password in base64") from None
        username, colon, password = text.partition(":")
        if not colon:
            raise LocalError(f"{what}: `auth` is not user:password in base64")
        password = password.rstrip("\x00")
    if entry.identitytoken or entry.registrytoken or username:
        return Credentials(username, password, entry.identitytoken or "", entry.registrytoken or "")
    return None
