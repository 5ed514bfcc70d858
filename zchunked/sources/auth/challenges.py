"""Parse WWW-Authenticate (RFC 9110, 11.6.1), and what servers make of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct, field

from zchunked.errors import FormatError
from zchunked.limits import DEFAULT_LIMITS, Limits

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_KNOWN = r"(?:bearer|basic|digest|negotiate|ntlm)"
_SCHEME = re.compile(rf"({_WORD})(?=[ \t,;]|$)", re.ASCII)
_NAME = re.compile(rf"({_WORD})[ \t]*=[ \t]*", re.ASCII)
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)(?:\"|$)", re.DOTALL)
# Without quotes: as far as the next comma, or the blank before the next parameter.
_BARE = re.compile(
    rf"[^,\"]*?(?=[ \t]*(?:,|$)|[ \t]+(?:{_KNOWN}[ \t]+)?{_WORD}[ \t]*=)", re.ASCII | re.IGNORECASE
)
_BETWEEN = re.compile(r"[ \t,;]*", re.ASCII)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Challenge(Struct, frozen=True):
    """One way in that the server offers. Scheme and names of parameters in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str, *, limits: Limits = DEFAULT_LIMITS) -> list[Challenge]:
    """All challenges of one header, or of several joined by commas.

    Read as leniently as the container tools read it: values without quotes or with one that is
    never closed, blanks between parameters, parameters said twice (scopes add up, else the first
    counts); what fits nowhere is passed over. Raises FormatError for a header beyond its limit.
    """
    if len(header) > limits.header_value_chars:
        raise FormatError(
            f"WWW-Authenticate has {len(header)} characters, the limit is "
            f"{limits.header_value_chars}"
        )
    challenges: list[Challenge] = []
    parameters: dict[str, str] = {}
    at = _skip(header, 0)
    while at < len(header):
        if challenges and (name := _NAME.match(header, at)):
            value, at = _value(header, name.end())
            key = name[1].lower()
            if key == "scope" and key in parameters:
                parameters[key] += f" {value}"
            parameters.setdefault(key, value)
        elif scheme := _SCHEME.match(header, at):
            parameters = {}
            challenges.append(Challenge(scheme[1].lower(), parameters))
            at = scheme.end()
            ahead = _skip_blanks(header, at)
            if not _NAME.match(header, ahead) and header[ahead : ahead + 1] != ",":
                at = _next_comma(header, ahead)  # token68, or nothing that we know
        else:
            at = _next_comma(header, at)
        at = _skip(header, at)
    return challenges


def _value(header: str, at: int) -> tuple[str, int]:
    """The value that begins there, and where it ends."""
    if found := _QUOTED.match(header, at):
        return _ESCAPE.sub(r"\1", found[1]), found.end()
    if found := _BARE.match(header, at):
        return found[0].strip(), found.end()
    end = _next_comma(header, at)
    return header[at:end].strip(), end


def _skip(header: str, at: int) -> int:
    found = _BETWEEN.match(header, at)
    return found.end() if found else at


def _skip_blanks(header: str, at: int) -> int:
    while header[at : at + 1] in (" ", "\t"):
        at += 1
    return at


def _next_comma(header: str, at: int) -> int:
    end = header.find(",", at)
    return len(header) if end < 0 else end
