"""Choose a URL's proxy: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, as curl and Go do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from zchunked.errors import UsageError
from zchunked.oci.reference import is_loopback

_Address = IPv4Address | IPv6Address
_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::(\d{1,5}))?", re.ASCII)


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """The URL of the proxy; None to go there directly, as always to this machine itself.

    Raises UsageError, naming the variable but not its value, for a proxy that cannot be used.
    """
    parts = urlsplit(url)
    host, scheme = (parts.hostname or "").rstrip("."), parts.scheme.lower()
    if is_loopback(f"[{host}]" if ":" in host else host):
        return None
    for name in (f"{scheme}_proxy", "all_proxy"):
        variable = name if environment.get(name) else name.upper()
        if value := environment.get(variable, "").strip():
            break
    else:
        return None
    if is_exempt(host, parts.port or _PORTS[scheme], _either(environment, "no_proxy")):
        return None
    return _checked(value, variable)


def _either(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.upper(), "")


def _checked(value: str, variable: str) -> str:
    whole = value if "://" in value else f"http://{value}"
    scheme = whole.partition("://")[0].lower()
    if scheme.startswith("socks"):
        raise UsageError(
            f"{variable} names a SOCKS proxy ({scheme}://), which is not supported; expected "
            "http://host:port"
        )
    try:
        parts = urlsplit(whole)
        if scheme in _PORTS and parts.hostname and parts.port != 0:
            return whole
    except ValueError:
        pass
    raise UsageError(
        f"invalid {variable}; expected the URL of a proxy, http://host:port or https://host:port"
    )


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether an entry of `no_proxy` (separated by commas or blanks) is for this host.

    `*` is for every host; `name` and `.name` for a domain and all below it, `*.name` for what is
    below it alone; an address or a network in CIDR notation for addresses. Any entry may end in a
    port, and is then for that port alone.
    """
    host = host.lower().rstrip(".")
    entries = filter(None, re.split(r"[,\s]+", no_proxy.lower()))
    return any(entry == "*" or _fits(entry, host, port, _address(host)) for entry in entries)


def _fits(entry: str, host: str, port: int, address: _Address | None) -> bool:
    if "/" in entry:
        network = _network(entry)
        return address is not None and network is not None and address in network
    if (literal := _address(entry)) is not None:  # IPv6 may stand there without brackets
        return literal == address
    found = _ENTRY.fullmatch(entry)
    if found is None or (found[3] and int(found[3]) != port):
        return False
    name = found[1] or found[2]
    if (literal := _address(name)) is not None:
        return literal == address
    return address is None and _is_below(host, name.rstrip("."))


def _is_below(host: str, name: str) -> bool:
    if name.startswith("*."):
        return host.endswith(name[1:]) and len(host) >= len(name)
    name = name.removeprefix(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(text: str) -> _Address | None:
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None
