"""Access policy: which upstream registries and which clients are allowed. Pure.

The server holds its owner's credentials, so it must not become everybody's way to every host: what
is not allowed by name is refused, and so are addresses, unless they were named.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass

from zchunked.errors import AccessDeniedError, UsageError

DEFAULT_HOSTS = ("docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "public.ecr.aws")
_PATTERN = re.compile(
    r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[a-z0-9._/-]+)?", re.ASCII
)
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Allowed:
    """`HOST[/PREFIX]` patterns; a prefix ends where a path component does."""

    patterns: frozenset[str]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Allowed:
        """Raises UsageError."""
        patterns = {text.rstrip("/") for text in texts}
        for text in patterns:
            if not _PATTERN.fullmatch(text):
                raise UsageError(f"invalid --allow: {text!r:.200}; expected HOST[:PORT][/PREFIX]")
        return cls(frozenset(patterns))

    def check(self, host: str, repository: str) -> None:
        """Raises AccessDeniedError unless this repository may be asked for."""
        parts = [host, *repository.split("/")]
        if not any("/".join(parts[:count]) in self.patterns for count in range(1, len(parts) + 1)):
            raise AccessDeniedError(
                f"{host}/{repository} is not allowed here; the operator of this server can add "
                f"--allow {host}"
            )


@dataclass(frozen=True, slots=True)
class Clients:
    """Who may ask: everybody on loopback, or only those who know the token."""

    token: str | None = None

    @classmethod
    def of(cls, text: str | None) -> Clients:
        """`text`: of the token file, or None. UsageError for a token that can be guessed."""
        if text is None:
            return cls()
        token = text.strip()
        if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
            raise UsageError(
                f"invalid token file: expected one line of at least {_SHORTEST_TOKEN} printable "
                "ASCII characters"
            )
        return cls(token)

    def admits(self, authorization: str | None) -> bool:
        """Bearer, or Basic with the token as the password, which is what `docker login` sends."""
        if self.token is None:
            return True
        scheme, _, value = (authorization or "").partition(" ")
        said = value.strip()
        if scheme.lower() == "basic":
            try:
                said = b64decode(said, validate=True).decode("utf-8").partition(":")[2]
            except (Base64Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(said.encode(), self.token.encode())
