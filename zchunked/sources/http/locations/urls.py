"""Redact URLs for messages, and resolve redirects. Pure."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, quote, urljoin, urlsplit, urlunsplit

from zchunked.errors import PermanentError

# signatures travel in the others
_SHOWN_KEYS = frozenset({"scope", "service", "digest", "n", "ns", "tag"})
_URL_CHARS = "!#$%&'()*+,/:;=?@[]~"  # with letters, digits and -._ all that a URL is made of
_PORTS = {"http": 80, "https": 443}
_SHORTEST_SECRET = 8  # of a query value: `X-Amz-Expires=300` is none

Origin = tuple[str, str, int]
"""Scheme, host, port: what credentials are for."""


def shown(url: str) -> str:
    """A URL for messages and logs: no user info, no fragment; most query values are `…`."""
    try:
        parts = urlsplit(url)
        text = "&".join(
            [
                _shown_pair(key, value)
                for key, value in parse_qsl(parts.query, keep_blank_values=True)
            ]
        )
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, text, ""))[
            :300
        ]
    except ValueError:
        return "(an unreadable URL)"


def _shown_pair(key: str, value: str) -> str:
    return f"{quote(key, safe='')[:40]}=" + (
        quote(value, safe=":/,*") if key in _SHOWN_KEYS else "…"
    )


def hidden_values(url: str) -> list[str]:
    """The query values that `shown` hides, as they may be echoed: encoded and decoded."""
    query = urlsplit(url).query
    decoded = [value for key, value in parse_qsl(query) if key not in _SHOWN_KEYS]
    encoded = [
        value
        for key, _, value in (pair.partition("=") for pair in query.split("&"))
        if key not in _SHOWN_KEYS
    ]
    return [value for value in (*decoded, *encoded) if len(value) >= _SHORTEST_SECRET]


def netloc(url: str) -> str:
    """`host` or `host:port`, as the URL has it, in lower case."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def origin(url: str) -> Origin:
    """Raises PermanentError for a URL that has none."""
    return _origin(_parsed(url))


def _origin(parts: SplitResult) -> Origin:
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    return scheme, host, parts.port or _PORTS[scheme]


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if (
            parts.scheme.lower() in _PORTS
            and parts.hostname
            and (parts.port is None or parts.port > 0)
        ):
            return parts
    except ValueError:
        pass
    raise PermanentError(f"{shown(url)!r:.300}: expected a URL of http or https")


def redirect_target(url: str, location: str, *, may_leave_tls: bool = False) -> str:
    """Where `location`, in the answer of `url`, leads: a URL of printable ASCII.

    Raises PermanentError for a URL that is not http or https, and for one that leads from https to
    http unless `may_leave_tls`.
    """
    try:
        joined = urljoin(url, _as_ascii(location.strip()))
    except ValueError as error:
        raise PermanentError(f"{shown(url)}: redirects to an unreadable URL") from error
    target = _parsed(joined)
    leaves_tls = _parsed(url).scheme.lower() == "https" and target.scheme.lower() != "https"
    if leaves_tls and not may_leave_tls:
        raise PermanentError(
            f"{shown(url)}: redirects to {shown(joined)}, away from TLS; refused, unless "
            "--tls-verify=false or `insecure = true` in registries.conf allows it"
        )
    return urlunsplit(target._replace(netloc=target.netloc.rpartition("@")[2], fragment=""))


def _as_ascii(location: str) -> str:
    """Percent-encode bytes beyond ASCII and control characters of a header, as they arrived."""
    return quote(
        location.encode("utf-8" if max(location, default="") > "\xff" else "latin-1"),
        safe=_URL_CHARS,
    )
