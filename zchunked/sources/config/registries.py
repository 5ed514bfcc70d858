"""Parse registries.conf: which registries serve an image (version 2 of its format)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from zchunked.errors import AccessDeniedError, InvalidReferenceError, LocalError
from zchunked.oci.reference import Reference, parse_reference

_PLACE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*(?:/[\w./@:+-]+)?", re.ASCII)
_WILDCARD = re.compile(r"\*(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)+", re.ASCII)
_VERSION_1 = ("search", "insecure", "block")

Pulls = Literal["all", "digest-only", "tag-only"]
"""Which references a mirror is good for."""


class RegistryLocation(Struct, frozen=True):
    """`location` replaces the prefix of an image's name; empty, it leaves the name alone."""

    location: str
    is_insecure: bool = False
    pulls: Pulls = "all"


class Registry(Struct, frozen=True):
    """What is said of all images under a prefix. `file` is who says it."""

    prefix: str
    primary: RegistryLocation
    mirrors: tuple[RegistryLocation, ...]
    is_blocked: bool
    file: str


Registries = Mapping[str, Registry]
"""By prefix. Later files replace what earlier ones say of a prefix."""


class Endpoint(Struct, frozen=True):
    """One registry that may serve an image, and the image's name there."""

    reference: Reference
    is_insecure: bool = False
    """Unencrypted http and any certificate will do."""
    is_mirror: bool = False


# ── the wire shapes ──


class _Mirror(msgspec.Struct, rename="kebab"):
    location: str = ""
    insecure: bool = False
    pull_from_mirror: Literal["", "all", "digest-only", "tag-only"] = ""


class _Registry(msgspec.Struct, rename="kebab"):
    prefix: str = ""
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirror_by_digest_only: bool = False
    mirror: list[_Mirror] = []


class _File(msgspec.Struct):
    registry: list[_Registry] = []


def parse_registries(data: bytes, file: str) -> dict[str, Registry]:
    """Parse one file; unknown keys are ignored. LocalError names the file and the place in it."""
    import tomllib  # noqa: PLC0415 - takes time to load, and many machines have no such file

    try:
        found = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LocalError(
            f"invalid {file}: expected UTF-8, got another byte at {error.start}"
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise LocalError(f"invalid {file}: expected TOML: {str(error)[:200]}") from error
    _refuse_version_1(found.get("registries"), file)
    try:
        wire = msgspec.convert(found, type=_File)
    except msgspec.ValidationError as error:
        raise LocalError(f"{file}: {str(error)[:200]}") from error
    registries = [
        _registry(one, f"{file}: [[registry]] {number}", file)
        for number, one in enumerate(wire.registry, 1)
    ]
    return {one.prefix: one for one in registries}


def _refuse_version_1(tables: Any, file: str) -> None:
    old = [tables.get(key) for key in _VERSION_1] if isinstance(tables, dict) else []
    # some are left behind, empty
    if any(isinstance(one, dict) and one.get("registries") for one in old):
        raise LocalError(
            f"{file} has the long retired version 1 of the format ([registries.search], …), "
            "which knows no mirrors; write a [[registry]] table for each registry instead: man "
            "5 containers-registries.conf"
        )


def _registry(wire: _Registry, where: str, file: str) -> Registry:
    prefix = _prefix(wire.prefix or wire.location, where)
    if not wire.location and not prefix.startswith("*."):
        raise LocalError(
            f"{where}: {prefix!r:.200} has no `location`; only a prefix like *.example.com needs "
            "none"
        )
    primary = RegistryLocation(
        _location(wire.location, where) if wire.location else "", wire.insecure
    )
    mirrors = []
    for number, mirror in enumerate(wire.mirror, 1):
        location = _location(mirror.location, f"{where}, mirror {number}")
        if wire.mirror_by_digest_only and mirror.pull_from_mirror:
            raise LocalError(
                f"{where}, mirror {number}: `pull-from-mirror` contradicts `mirror-by-digest-only`"
            )
        pulls: Pulls = (
            "digest-only" if wire.mirror_by_digest_only else mirror.pull_from_mirror or "all"
        )
        mirrors.append(RegistryLocation(location, mirror.insecure, pulls))
    return Registry(prefix, primary, tuple(mirrors), wire.blocked, file)


def _prefix(text: str, where: str) -> str:
    if text.startswith("*"):
        if not _WILDCARD.fullmatch(text):
            raise LocalError(
                f"{where}: {text!r:.200}: a wildcard stands for subdomains only, as in "
                "*.example.com"
            )
        return text.lower()
    host, slash, path = _location(text, where).partition("/")
    return f"{host.lower()}{slash}{path}"


def _location(text: str, where: str) -> str:
    trimmed = text.rstrip("/")
    if "://" in trimmed:
        raise LocalError(
            f"{where}: invalid location {text!r:.200}; expected host[:port][/path], without a "
            "scheme"
        )
    if not _PLACE.fullmatch(trimmed):
        raise LocalError(f"{where}: invalid location {text!r:.200}; expected host[:port][/path]")
    return trimmed


# ── looking up ──


def find(registries: Registries, reference: Reference) -> Registry | None:
    """The table that counts for an image: of the longest prefix, and a host before any wildcard."""
    best: tuple[bool, int] | None = None
    chosen = None
    for registry in registries.values():
        if _rest(reference, registry.prefix) is not None:
            rank = (not registry.prefix.startswith("*."), len(registry.prefix))
            if best is None or rank > best:
                best, chosen = rank, registry
    return chosen


def _rest(reference: Reference, prefix: str) -> str | None:
    """What of the image's name follows the prefix; None when the prefix does not fit."""
    host, whole = reference.host.lower(), str(reference)
    if prefix.startswith("*."):
        name = host if host.startswith("[") else host.partition(":")[0]
        return (
            whole[len(host) :] if name.endswith(prefix[1:]) and len(name) >= len(prefix) else None
        )
    rest = whole[len(prefix) :]
    # a colon behind a host starts a port, which is another registry
    separators = ":/@" if "/" in prefix else "/"
    is_start = (host + whole[len(host) :]).startswith(prefix) and (
        not rest or rest[0] in separators
    )
    return rest if is_start else None


def endpoints(registries: Registries, reference: Reference) -> list[Endpoint]:
    """The registries that may serve the image, best first: usable mirrors, then the primary.

    Raises AccessDeniedError naming the file that blocks it, LocalError for a location that makes no
    name.
    """
    found = find(registries, reference)
    if found is None:
        return [Endpoint(reference)]
    if found.is_blocked:
        raise _blocked(reference, found)
    wanted = ("all", "digest-only" if reference.digest else "tag-only")
    ends: list[Endpoint] = []
    for place in [mirror for mirror in found.mirrors if mirror.pulls in wanted]:
        end = Endpoint(_rewritten(reference, found, place), place.is_insecure, is_mirror=True)
        if _blocker(registries, end.reference) is None and end.reference not in [
            one.reference for one in ends
        ]:
            ends.append(end)
    primary = _rewritten(reference, found, found.primary)
    if blocker := _blocker(registries, primary):
        raise _blocked(primary, blocker)
    return [end for end in ends if end.reference != primary] + [
        Endpoint(primary, found.primary.is_insecure)
    ]


def _blocker(registries: Registries, reference: Reference) -> Registry | None:
    found = find(registries, reference)
    return found if found is not None and found.is_blocked else None


def _blocked(reference: Reference, by: Registry) -> AccessDeniedError:
    return AccessDeniedError(
        f"{reference.name} is blocked: {by.file} says so of {by.prefix!r:.200} (blocked = true)"
    )


def _rewritten(reference: Reference, registry: Registry, place: RegistryLocation) -> Reference:
    rest = _rest(reference, registry.prefix)
    if not place.location or rest is None:
        return reference
    try:
        there = parse_reference(place.location + rest)
    except InvalidReferenceError as error:
        raise LocalError(
            f"{registry.file}: location {place.location!r:.200} for {reference.name}: {error}"
        ) from error
    if there.host != place.location.partition("/")[0]:
        raise LocalError(
            f"{registry.file}: invalid location {place.location!r:.200}; expected a host's full "
            "name first, or one with a port"
        )
    return there
