"""Map obstore's exceptions, by their texts, to our errors. Pure.

Its classes tell no server that is busy from one that will never do. What was answered stands in the
text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from zchunked.errors import (
    AccessDeniedError,
    NotFoundError,
    RangeIgnoredError,
    TransferError,
    TransientError,
    ZPullError,
)
from zchunked.sources.http.errors.status_errors import excerpt_of, status_error

_STATUS = re.compile(r"non-2xx status code: (\d{3})[^:\n]*: (.*)\n\nDebug source:", re.DOTALL)
_STATUS_ALONE = re.compile(r"non-2xx status code: (\d{3})")
_KIND = re.compile(r"\bkind: (Connect|Request|Timeout|Interrupted|Decode|Unknown)\b")
# where clouds keep credentials
_MACHINE = re.compile(r"169\.254\.\d+\.\d+|fd00:ec2|metadata\.google\.internal")
_HOST = re.compile(r"\bhttps?://(?:[^/@\s]*@)?([^/?#\s]{1,255})")
_BREAKS = {
    "Connect": "cannot be reached",
    "Request": "dropped the connection without an answer",
    "Timeout": "was silent for too long",
    "Interrupted": "broke off in the middle of a body",
    "Decode": "sent an answer that cannot be read",
    "Unknown": "failed in a way that is not told",
}


@dataclass(frozen=True, slots=True)
class Answered:
    """One failed request: the error to raise, the status if any, and the body's length."""

    error: ZPullError
    status: int | None = None
    body_bytes: int = 0
    has_asked: bool = True


def understood(
    error: Exception, what: str, *, secrets: Iterable[str] = (), hint: str = ""
) -> Answered:
    """`hint`: what to set without credentials. No message holds a URL: it may carry a signature."""
    text = str(error)
    if "NotPartial" in text or "non-partial response" in text:
        return Answered(RangeIgnoredError(f"{what}: the range is ignored"), 200)
    if _MACHINE.search(text):
        return Answered(
            AccessDeniedError(f"{what}: there are no credentials for it; {hint}"), has_asked=False
        )
    found = _STATUS.search(text) or _STATUS_ALONE.search(text)
    if found is not None:
        status = int(found[1])
        body = found[2].encode() if found.re is _STATUS else b""
        ours = status_error(status, {}, body, what, secrets=secrets, now=0.0)
        if isinstance(ours, AccessDeniedError) and hint:
            ours = AccessDeniedError(f"{ours}; {hint}")
        return Answered(ours, status, len(body))
    if "LOCATION" in text or "incorrectly configured region" in text:
        return Answered(
            TransferError(f"{what}: the bucket is in another region; set AWS_REGION"), 301
        )
    if "invalid peer certificate" in text or "InvalidCertificate" in text:
        return Answered(
            TransferError(
                f"{what}: the server's certificate is not trusted; --cert-dir DIR says where its "
                "CA is"
            ),
            has_asked=False,
        )
    if kind := _KIND.search(text):
        host = _HOST.search(text.partition("\n\nDebug source:")[0])
        message = f"{what}: {host[1] if host else 'its host'} {_BREAKS[kind[1]]}"
        return Answered(TransientError(message), has_asked=kind[1] != "Connect")
    if isinstance(error, FileNotFoundError):
        return Answered(NotFoundError(f"{what}: no such object"), 404)
    gist = re.sub(r"\b[a-z]+://\S+", "…", text.partition("\n\nDebug source:")[0])
    return Answered(
        TransferError(f"{what}: {excerpt_of(gist.encode(), secrets) or type(error).__name__}"),
        has_asked=False,
    )
