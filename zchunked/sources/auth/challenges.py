"""WWW-Authenticate, parsed strictly (RFC 9110, 11.6.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from zchunked.errors import FormatError
from zchunked.limits import DEFAULT_LIMITS, Limits

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"({_WORD})(?:[ \t]+|(?=,)|$)", re.ASCII)
_PARAMETER = re.compile(
    rf"({_WORD})[ \t]*=[ \t]*(?:({_WORD})|\"((?:[^\"\\\x00-\x08\x0a-\x1f\x7f]|\\.)*)\")[ \t]*(?=,|$)"
)
_SIXTY_EIGHT = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)", re.ASCII)
_COMMAS = re.compile(r"[ \t,]*", re.ASCII)
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that the server offers. Scheme and names of parameters in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str, *, limits: Limits = DEFAULT_LIMITS) -> list[Challenge]:
    """All challenges of one header, or of several joined by commas. Raises FormatError."""
    if len(header) > limits.header_value_chars:
        raise FormatError(f"WWW-Authenticate has {len(header)} characters, the limit is {limits.header_value_chars}")
    challenges: list[Challenge] = []
    at = _skip(header, 0)
    while at < len(header):
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            raise _malformed(header, at)
        at = scheme.end()
        parameters: dict[str, str] = {}
        while found := _PARAMETER.match(header, at):
            name = found[1].lower()
            if name in parameters:
                raise FormatError(f"WWW-Authenticate says {name!r:.60} twice: {header!r:.200}")
            parameters[name] = found[2] if found[2] is not None else _ESCAPE.sub(r"\1", found[3])
            at = _skip(header, found.end())
        if not parameters:
            if sixty_eight := _SIXTY_EIGHT.match(header, at):
                at = sixty_eight.end()
            if at < len(header) and header[at] != ",":
                raise _malformed(header, at)
        challenges.append(Challenge(scheme[1].lower(), parameters))
        at = _skip(header, at)
    return challenges


def _skip(header: str, at: int) -> int:
    found = _COMMAS.match(header, at)
    return found.end() if found else at


def _malformed(header: str, at: int) -> FormatError:
    return FormatError(f"WWW-Authenticate is malformed at character {at}: {header!r:.200}")
