"""What an unwelcome answer means: status, headers and body → one of our errors. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from zchunked.errors import AccessDeniedError, NotFoundError, TransferError, TransientError, ZPullError

_QUOTED_CHARS = 200
_TRANSIENT = frozenset({408, 425, 429})
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_HINT = re.compile(
    rf"retry-after[\"']?\s*[:=]\s*[\"']?((?:{_DURATION.pattern})+|\d{{1,9}}(?:\.\d{{1,9}})?)", re.IGNORECASE
)
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_XML = re.compile(r"<(Code|Message)>([^<]{1,300})</\1>")


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, what: str, *, secrets: Iterable[str] = (), now: float
) -> ZPullError:
    """The error to raise for an answer that is not what was asked for.

    `body` may be cut short. `now` is the wall clock in seconds, for Retry-After dates.
    """
    said = quoted(body, secrets)
    message = f"{what}: {_phrase(status)}" + (f", the server says {said}" if said else "")
    if status in (404, 410):
        return NotFoundError(message)
    if status in (401, 403):
        return AccessDeniedError(message)
    if status in _TRANSIENT or (status >= 500 and status != 501):
        return TransientError(message, retry_after=retry_after(headers, body, now))
    return TransferError(message)


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"status {status}"


def retry_after(headers: Mapping[str, str], body: bytes, now: float) -> float | None:
    """How many seconds the server asks us to wait: by its header, a number or a date, or by a hint in the body."""
    said = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(said):
        return float(said)
    if said:
        try:
            return max(0.0, parsedate_to_datetime(said).timestamp() - now)
        except (ValueError, TypeError, OverflowError):
            pass
    if hint := _HINT.search(body.decode("utf-8", "replace")):
        if _SECONDS.fullmatch(hint[1]):
            return float(hint[1])
        return sum([float(number) * _UNITS[unit.lower()] for number, unit in _DURATION.findall(hint[1].lower())])
    return None


def quoted(body: bytes, secrets: Iterable[str] = ()) -> str:
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
        return "; ".join([": ".join([str(one[key]) for key in ("code", "message") if one.get(key)]) for one in ones])
    words = [
        found[key] for key in ("error", "error_description", "details", "message") if isinstance(found.get(key), str)
    ]
    return ": ".join(words)
