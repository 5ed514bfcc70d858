"""Refuse redirects inward: to services of this machine, or to a cloud's metadata service.

A registry may send us to any storage, in a private network too. Loopback and link-local addresses
are no storage: such a redirect wants what only this machine can reach (server-side request
forgery).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from zchunked.errors import PermanentError
from zchunked.sources.http.connections.host_lookup import addresses_of
from zchunked.sources.http.locations.urls import shown

_METADATA = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"))
)  # of clouds that do not use link-local addresses
_NAME_SECONDS = 10.0
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str], Iterable[str]]


def _resolve(host: str) -> list[str]:
    """Nothing where the name is not known: then connecting fails as well."""
    try:
        return addresses_of(host, _NAME_SECONDS)
    except (OSError, UnicodeError):
        return []


def refuse_inward(url: str, target: str, resolve: Resolve = _resolve) -> None:
    """Raise PermanentError if `target` leads inward and `url`, which redirects to it, does not.

    The name is looked up once more when connecting; what a resolver changes meanwhile is not seen.
    """
    before, after = urlsplit(url).hostname or "", urlsplit(target).hostname or ""
    if before == after:
        return
    inward = [one for one in _addresses(after, resolve) if _is_inward(one)]
    if inward and not any(_is_inward(one) for one in _addresses(before, resolve)):
        raise PermanentError(
            f"{shown(url)}: redirects to {shown(target)}, which is {inward[0]}: an address of "
            "this machine or of its host; refused"
        )


def _addresses(host: str, resolve: Resolve) -> list[_Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        return [ipaddress.ip_address(text.partition("%")[0]) for text in resolve(host)]


def _is_inward(address: _Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address in _METADATA
    )
