"""Map HTTP status, headers and body to our errors; read Retry-After. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from zchunked.errors import (
    AccessDeniedError,
    NotFoundError,
    PermanentError,
    TransientError,
    ZPullError,
)

_QUOTED_CHARS = 200
_TRANSIENT = frozenset({408, 425, 429})
_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_HINT = re.compile(
    rf"retry-after[\"']?\s*[:=]\s*[\"']?((?:{_DURATION.pattern})+|\d{{1,9}}(?:\.\d{{1,9}})?)",
    re.IGNORECASE,
)
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_QUOTA = re.compile(
    rb"pull rate limit|reached your .{0,40}rate limit|increase-rate-limit", re.IGNORECASE
)
_QUOTA_TRIES = 3
_XML = re.compile(r"<(Code|Message)>([^<]{1,300})</\1>")


def status_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    what: str,
    *,
    secrets: Iterable[str] = (),
    now: float,
) -> ZPullError:
    """The error to raise for an answer that is not what was asked for.

    `body` may be cut short. `now` is the wall clock in seconds, for Retry-After dates where the
    answer has no Date of its own.
    """
    said = excerpt_of(body, secrets)
    message = f"{what}: {_phrase(status)}" + (f", the server says {said}" if said else "")
    if status in (404, 410):
        return NotFoundError(message)
    if status in (401, 403):
        return AccessDeniedError(message)
    if status == 407:
        return AccessDeniedError(
            f"{message}; the proxy refuses the credentials in HTTP_PROXY, or wants some"
        )
    if status == 429 and retry_after(headers, body, now) is None and _is_quota(headers, body):
        return TransientError(
            f"{message}; a quota of pulls is used up: log in, use a mirror, or wait some hours",
            most_tries=_QUOTA_TRIES,
        )
    if status in _TRANSIENT or (status >= 500 and status != 501):
        return TransientError(message, retry_after=retry_after(headers, body, now))
    return PermanentError(message)


def is_page(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether this is a web page, as login portals and proxies send in place of anything."""
    begin = body[:200].lstrip().lower()
    is_html = (
        headers.get("Content-Type", "")
        .strip()
        .lower()
        .startswith(("text/html", "application/xhtml"))
    )
    return (is_html and begin.startswith(b"<")) or begin.startswith((b"<!doctype html", b"<html"))


def page_error(what: str, body: bytes) -> PermanentError:
    """The error for a web page with status 200."""
    said = excerpt_of(body)
    return PermanentError(
        f"{what}: a web page (HTML) came in its place, {said}; a login portal or proxy on the way, "
        "or no registry behind this name?"
    )


def _is_quota(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a 429 counts pulls over hours, as Docker Hub does, and not requests over seconds."""
    remaining = re.match(
        r"\s*0\s*;\s*w=(\d{3,9})", headers.get("RateLimit-Remaining", ""), re.ASCII
    )
    return bool(remaining and int(remaining[1]) >= 600) or _QUOTA.search(body) is not None


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"status {status}"


def retry_after(headers: Mapping[str, str], body: bytes, now: float) -> float | None:
    """Seconds that the server asks to wait: by Retry-After, or by a hint in the body."""
    said = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(said):
        return float(said)
    if (until := _moment(said)) is not None:
        # Read against the server's clock: this machine's may be years off.
        sent = _moment(headers.get("Date", ""))
        return max(0.0, until - (now if sent is None else sent))
    if hint := _HINT.search(body.decode("utf-8", "replace")):
        if _SECONDS.fullmatch(hint[1]):
            return float(hint[1])
        return sum(
            [
                float(number) * _UNITS[unit.lower()]
                for number, unit in _DURATION.findall(hint[1].lower())
            ]
        )
    return None


def _moment(date: str) -> float | None:
    """An HTTP date in seconds since 1970; None for anything else."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def excerpt_of(body: bytes, secrets: Iterable[str] = ()) -> str:
    """The gist of an error body, safe to print; empty when it says nothing."""
    text = body.decode("utf-8", "replace").strip()
    text = _gist(text)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "…")
    text = " ".join(text.split())
    return repr(text[:_QUOTED_CHARS] + ("…" if len(text) > _QUOTED_CHARS else "")) if text else ""


def _gist(text: str) -> str:
    if text.startswith("{"):
        try:
            return _json_gist(json.loads(text)) or text
        except (ValueError, RecursionError):
            return text
    if text.startswith("<"):
        return ": ".join([found[2] for found in _XML.finditer(text)]) or text
    return text


def _json_gist(found: Any) -> str:
    """The distribution API, token endpoints and clouds each have a shape of their own."""
    errors = found.get("errors")
    if isinstance(errors, list):
        ones = [one for one in errors if isinstance(one, dict)]
        return "; ".join(
            [
                ": ".join([str(one[key]) for key in ("code", "message") if one.get(key)])
                for one in ones
            ]
        )
    words = [
        found[key]
        for key in ("error", "error_description", "details", "message")
        if isinstance(found.get(key), str)
    ]
    return ": ".join(words)
