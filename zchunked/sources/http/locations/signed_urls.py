"""When a signed URL expires, as far as the URL itself says. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNED = re.compile(r"x-([a-z]{1,20})-date", re.ASCII)
_COMPACT = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_LONGEST_POLICY = 8 << 10


def expiry_of(url: str) -> datetime | None:
    """When the URL expires, in UTC; None when it says nothing readable.

    Known are the signatures of S3 (both), Google and Alibaba, of Azure (`se`), and of CloudFront
    (`Expires`, `Policy`).
    """
    try:
        pairs = parse_qsl(urlsplit(url).query, max_num_fields=100)
    except ValueError:
        return None
    query = {key.lower(): value for key, value in pairs}
    try:
        return _by_duration(query) or _by_time(query) or _by_policy(query)
    except (ValueError, OverflowError):
        return None


def _by_duration(query: Mapping[str, str]) -> datetime | None:
    """`X-Amz-Date` and `X-Amz-Expires`, and others that are built like these."""
    for key, signed in query.items():
        if (vendor := _SIGNED.fullmatch(key)) and _COMPACT.fullmatch(signed):
            seconds = query.get(f"x-{vendor[1]}-expires", "")
            if _SECONDS.fullmatch(seconds):
                began = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return began + timedelta(seconds=int(seconds))
    return None


def _by_time(query: Mapping[str, str]) -> datetime | None:
    if _SECONDS.fullmatch(text := query.get("expires", "")):
        return datetime.fromtimestamp(int(text), UTC)
    if not (text := query.get("se", "")) or not text.isascii():
        return None
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _by_policy(query: Mapping[str, str]) -> datetime | None:
    """CloudFront's own alphabet: `-_~` for `+=/`."""
    text = query.get("policy", "")
    if not text or len(text) > _LONGEST_POLICY:
        return None
    try:
        found = json.loads(
            base64.b64decode(text.translate(str.maketrans("-_~", "+=/")), validate=True)
        )
        seconds = found["Statement"][0]["Condition"]["DateLessThan"]["AWS:EpochTime"]
    except (binascii.Error, ValueError, RecursionError, KeyError, IndexError, TypeError):
        return None
    return datetime.fromtimestamp(seconds, UTC) if type(seconds) is int else None
