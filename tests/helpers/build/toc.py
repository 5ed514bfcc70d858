"""The two indexes of a zstd:chunked layer as JSON: a TOC entry and two tar-split lines a member."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any

from tests.helpers.build.crc64 import crc64
from tests.helpers.build.tar import Member

Json = dict[str, Any]

_READ = 1 << 15
_UNSET_TIME = "0001-01-01T00:00:00Z"
_GO_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def dumps(value: object) -> bytes:
    """Compact JSON as Go writes it; lone surrogates of hostile edits are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_GO_ESCAPES).encode("utf-8", "backslashreplace")


def text(name: bytes) -> str:
    """As Go puts a name into JSON: one U+FFFD for each byte that is not UTF-8."""
    decoded = name.decode("utf-8", "surrogateescape")
    return "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in decoded)


def entry(member: Member, *, old_times: bool, zone: tzinfo) -> Json:
    """What the TOC says about a member apart from its payload; zero values are left out.

    `zone` is the builder's. Writers before 1.55 spell out times that are not set.
    """
    unset = _UNSET_TIME if old_times else None
    fields = {
        "type": member.type,
        "name": text(member.name),
        "linkName": text(member.linkname),
        "mode": member.mode,
        "size": member.size,
        "uid": member.uid,
        "gid": member.gid,
        "modtime": _time(member.mtime, zone),
        "accesstime": unset if member.atime is None else _time(member.atime, zone),
        "changetime": unset if member.ctime is None else _time(member.ctime, zone),
        "devMajor": member.dev[0],
        "devMinor": member.dev[1],
        "xattrs": {
            name: base64.b64encode(value).decode() for name, value in sorted(member.xattrs.items())
        },
    }
    return {key: value for key, value in fields.items() if value or key == "name"}


def _time(nanoseconds: int, zone: tzinfo) -> str:
    seconds, fraction = divmod(nanoseconds, 10**9)
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).astimezone(zone)
    written = moment.isoformat()
    clock, offset = written[:19], written[19:]
    decimals = f".{fraction:09d}".rstrip("0") if fraction else ""
    return clock + decimals + ("Z" if offset == "+00:00" else offset)


def tar_split(members: Iterable[Member], end: bytes, rest: bytes, rest_at: int) -> list[Json]:
    """All lines: literal bytes (type 2) and files (type 1) in turn, then the archive's end.

    What follows, from offset `rest_at` of the tar, comes as the writer reads its input: in blocks
    of 32 KiB, after eight bytes that are read apart to detect a compression.
    """
    lines = [*_member_lines(members), *_literal(end)]
    edges = [0, *range((8 - rest_at) % _READ or _READ, len(rest), _READ), len(rest)]
    for start, stop in pairwise(edges):
        lines += _literal(rest[start:stop])
    return [line | {"position": position} for position, line in enumerate(lines)]


def _member_lines(members: Iterable[Member]) -> Iterator[Json]:
    for member in members:
        yield from _literal(member.header)
        line: Json = {"type": 1}
        try:
            line["name"] = member.name.decode()
        except UnicodeDecodeError:
            line["name_raw"] = base64.b64encode(member.name).decode()
        if member.size:
            line["size"] = member.size
        yield line | {
            "payload": base64.b64encode(crc64(member.data)).decode() if member.size else None
        }


def _literal(data: bytes) -> list[Json]:
    return [{"type": 2, "payload": base64.b64encode(data).decode()}] if data else []
