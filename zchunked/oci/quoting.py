"""Quote text of peers and users for messages: one printable line, without passwords. Pure.

Every message of an error or event passes through `safe_line`, so that no server, image or file can
move a cursor, forge a line of output or have a password repeated.
"""

from __future__ import annotations

import re

_MOST_CHARS = 4000
_IS_DIGEST = r"(?![a-z0-9+._-]{2,20}:[0-9A-Fa-f]{16})"
_IN_URL = re.compile(rf"(?<=://)(?:[^/\s'\"]*|[^\s'\"]*:[^\s'\"]*)@{_IS_DIGEST}")
# A colon followed by digits and a slash starts a port: `host:5000/name@…` holds no password.
_BARE = re.compile(rf"(?<![\w./@…-])[^\s:/@'\"]+:(?!\d{{1,5}}/|//)[^\s'\"]*@{_IS_DIGEST}")
_DIGEST_AT_END = re.compile(r"(.*)(@[a-z0-9+._-]{2,20}:[0-9A-Fa-f]{16,})", re.DOTALL)


def printable(text: str) -> str:
    """The text with escapes in place of all that a terminal could act on, and of line ends."""
    if text.isprintable():
        return text
    return "".join([sign if sign.isprintable() else repr(sign)[1:-1] for sign in text])


def without_passwords(text: str) -> str:
    """`…@host` for `user:password@host`, with and without a scheme in front; digests stay."""
    if "@" not in text:
        return text
    return _BARE.sub("…@", _IN_URL.sub("…@", text))


def safe_line(text: str) -> str:
    """What a message may say; changes nothing when applied again."""
    return printable(without_passwords(text[:_MOST_CHARS]))


def typed(text: str, most: int = 200) -> str:
    """What a person typed, in quotes, cut to so many characters after secrets have been removed.

    More is removed than from other text: all before the last `@` that can be a user and password,
    blanks and slashes included, and what follows a `?`, for signatures travel there.
    """
    text, query, _ = text.partition("?")
    rest, digest = (found[1], found[2]) if (found := _DIGEST_AT_END.fullmatch(text)) else (text, "")
    scheme, slashes, bare = rest.rpartition("://") if "://" in rest else ("", "", rest)
    user, at, place = bare.rpartition("@")
    if at and (slashes or _BARE.match(f"{user}@".replace(" ", "_"))):
        rest = f"{scheme}{slashes}…@{place}"
    return f"{without_passwords(rest) + digest + ('?…' if query else '')!r:.{most}}"
