"""Tar archives as exact bytes: written from entries, read back with every header byte kept.

Reading follows Go's `archive/tar`, because that is what the writers of zstd:chunked images read
with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
TYPES = {
    "reg": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}
_TYPE_OF = {flag: name for name, flag in TYPES.items()} | {b"\0": "reg"}
_XATTR = b"SCHILY.xattr."
_OCTAL = re.compile(rb"[0-7]*")


def raw(text: str | bytes) -> bytes:
    """A name as the tar holds it; bytes that are not UTF-8 may come as surrogate escapes."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """The zeros that complete the last block of a payload."""
    return bytes(-size % BLOCK)


# ── writing ──


@dataclass(frozen=True, slots=True)
class Entry:
    """One member to be written. What a ustar header cannot say goes into a PAX header before it."""

    name: str | bytes
    data: bytes = b""
    type: str = "reg"
    linkname: str | bytes = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int | str = 1_700_000_000
    """Whole seconds, or exact decimal seconds as text."""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    pax: Mapping[str, str | bytes] = field(default_factory=dict)
    """Further PAX records, such as `atime`, or ones that lie about `path`."""
    dev: tuple[int, int] = (0, 0)
    header_size: int | None = None
    """What the header claims, when that is not the length of `data`."""


def make_tar(
    entries: Iterable[Entry] | Mapping[str, bytes], *, end: bytes = END_OF_ARCHIVE
) -> bytes:
    """The archive of these entries in this order.

    A mapping is short for plain files, and directories where the name ends in `/`.
    """
    if isinstance(entries, Mapping):
        entries = [
            Entry(name, type="dir", mode=0o755) if name.endswith("/") else Entry(name, data)
            for name, data in entries.items()
        ]
    parts: list[bytes] = []
    for entry in entries:
        parts += header(entry), entry.data, padding(len(entry.data))
    return b"".join([*parts, end])


def header(entry: Entry) -> bytes:
    """All header blocks of one entry: a PAX header if needed, then the ustar one."""
    records = {raw(key): raw(value) for key, value in entry.pax.items()}
    records |= {_XATTR + raw(name): value for name, value in entry.xattrs.items()}
    size = len(entry.data) if entry.header_size is None else entry.header_size
    seconds = entry.mtime
    if isinstance(seconds, str):
        records.setdefault(b"mtime", raw(seconds))
        seconds = int(seconds.partition(".")[0])

    def text(key: bytes, value: str | bytes, width: int) -> bytes:
        value = raw(value)
        if len(value) > width:
            records.setdefault(key, value)
        return value[:width]

    def number(key: bytes, value: int, digits: int) -> int:
        if 0 <= value < 8**digits:
            return value
        records.setdefault(key, b"%d" % value)
        return 0

    block = _ustar(
        name=text(b"path", entry.name, 100),
        flag=TYPES[entry.type],
        linkname=text(b"linkpath", entry.linkname, 100),
        mode=entry.mode,
        uid=number(b"uid", entry.uid, 7),
        gid=number(b"gid", entry.gid, 7),
        size=number(b"size", size, 11),
        mtime=number(b"mtime", seconds, 11),
        dev=entry.dev,
    )
    if not records:
        return block
    body = b"".join(_pax_record(key, value) for key, value in records.items())
    name = b"PaxHeaders.0/" + raw(entry.name)[:80]
    return _ustar(name=name, flag=b"x", size=len(body)) + body + padding(len(body)) + block


def _pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest) + len(str(len(rest)))
    size = len(rest) + len(str(size))  # the length counts its own digits
    return b"%d" % size + rest


def _ustar(
    *,
    name: bytes,
    flag: bytes,
    linkname: bytes = b"",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    dev: tuple[int, int] = (0, 0),
) -> bytes:
    front = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"),
        mode,
        uid,
        gid,
        size,
        mtime,
    )
    back = b"%b%b%b%b" % (flag, linkname.ljust(100, b"\0"), b"ustar\x0000", bytes(64))
    back += b"%07o\0%07o\0" % dev + bytes(167)
    return b"%b%06o\0 %b" % (front, sum(front) + 8 * ord(" ") + sum(back), back)


# ── reading ──


@dataclass(frozen=True, slots=True)
class Member:
    """One member as read. Times are nanoseconds since 1970; None when no header gives them."""

    header: bytes
    """Everything from the previous payload to this one: padding, extension headers, header."""
    name: bytes
    type: str
    linkname: bytes
    mode: int
    size: int
    """As the header says; the payload of a link is empty whatever it says."""
    uid: int
    gid: int
    mtime: int
    atime: int | None
    ctime: int | None
    dev: tuple[int, int]
    xattrs: dict[str, bytes]
    data: bytes


def parse_tar(tar: bytes) -> tuple[list[Member], bytes, bytes]:
    """Members in order, then the end (last padding and end blocks), then what follows.

    Raises ValueError on what the real writers refuse: global headers, contiguous and old sparse
    files.
    """
    members: list[Member] = []
    done = at = 0
    extra: dict[bytes, bytes] = {}
    while at < len(tar) and any(tar[at : at + BLOCK]):
        flag = tar[at + 156 : at + 157]
        size = _number(tar[at + 124 : at + 136])
        if flag in b"xLK":
            body = tar[at + BLOCK : at + BLOCK + size]
            at += BLOCK + size + -size % BLOCK
            if flag == b"x":
                extra |= _pax_records(body)
            else:
                extra[b"path" if flag == b"L" else b"linkpath"] = body.partition(b"\0")[0]
            continue
        member = _member(tar, done, at, extra)
        members.append(member)
        done = at + BLOCK + len(member.data)
        at = done + -len(member.data) % BLOCK
        extra = {}
    end = at
    for _ in range(2):
        if end < len(tar) and not any(tar[end : end + BLOCK]):
            end += BLOCK
    return members, tar[done:end], tar[end:]


def _member(tar: bytes, done: int, at: int, extra: dict[bytes, bytes]) -> Member:
    block = tar[at : at + BLOCK]
    flag = block[156:157]
    if flag not in _TYPE_OF:
        raise ValueError(f"member type {flag!r} at {at}")
    ustar, gnu = block[257:265] == b"ustar\x0000", block[257:265] == b"ustar  \0"
    name = _text(block[:100])
    if ustar and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    name = extra.get(b"path") or name
    kind = "dir" if flag == b"\0" and name.endswith(b"/") else _TYPE_OF[flag]
    size = int(extra.get(b"size") or _number(block[124:136]))
    data = tar[at + BLOCK : at + BLOCK + size] if kind == "reg" else b""
    device = kind in ("char", "block") and (ustar or gnu)

    def time(key: bytes, field: bytes) -> int | None:
        if value := extra.get(key):
            return _nanoseconds(value)
        return _number(field) * 10**9 if gnu and field[:1] != b"\0" else None

    return Member(
        header=tar[done : at + BLOCK],
        name=name,
        type=kind,
        linkname=extra.get(b"linkpath") or _text(block[157:257]),
        mode=_number(block[100:108]),
        size=size,
        uid=int(extra.get(b"uid") or _number(block[108:116])),
        gid=int(extra.get(b"gid") or _number(block[116:124])),
        mtime=_nanoseconds(extra[b"mtime"])
        if extra.get(b"mtime")
        else _number(block[136:148]) * 10**9,
        atime=time(b"atime", block[345:357]),
        ctime=time(b"ctime", block[357:369]),
        dev=(_number(block[329:337]), _number(block[337:345])) if device else (0, 0),
        xattrs={
            key[len(_XATTR) :].decode("utf-8", "surrogateescape"): value
            for key, value in extra.items()
            if key.startswith(_XATTR) and value
        },
        data=data,
    )


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    if field[:1] >= b"\x80":  # base 256, two's complement below the marker bit
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    found = _OCTAL.match(field.strip(b" \0"))
    return int(found[0] or b"0", 8) if found else 0


def _nanoseconds(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    part = int(fraction[:9].ljust(9, b"0"))
    return int(whole) * 10**9 + (-part if whole.startswith(b"-") else part)


def _pax_records(body: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    while body:
        size = int(body[: body.index(b" ")])
        key, _, value = body[:size].partition(b" ")[2].partition(b"=")
        records[key] = value[:-1]
        body = body[size:]
    return records
