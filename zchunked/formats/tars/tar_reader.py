"""Read a tar as Go's archive/tar does: members with raw header bytes, payloads streamed.

Go, because the writers and readers of zstd:chunked images are written in it, and a table of
contents must say what they see: containers/storage compares it with the headers, field by field.
What they refuse, and what they would lose, raises UnsupportedLayerError here: it can only be kept
in a layer without a table of contents.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from zchunked.errors import UnsupportedLayerError

BLOCK = 512
_PIECE = 256 << 10
_EXTENSION_BYTES = 1 << 20  # one PAX header or long name, as in Go
# all headers of a member: in a tar-split they are one line, which readers bound at 4 MiB
_HEADERS_BYTES = 3 << 20
_REST_BYTES = 1 << 20  # of what follows the end of the archive, in one piece
_LARGEST = (1 << 63) - 1
_ZEROS = bytes(BLOCK)
_CUT_OFF = "its tar ends in the middle of a file"

_KINDS = {
    b"0": "reg", b"\0": "reg", b"1": "hardlink", b"2": "symlink",
    b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo",
}  # fmt: skip
_REFUSED = {b"g": "a PAX global header", b"7": "a contiguous file", b"S": "an old GNU sparse file"}
_EXTENSIONS = (b"x", b"L", b"K")
_NO_RECORDS: dict[bytes, bytes] = {}  # never written to
_XATTR = b"SCHILY.xattr."
_OCTAL, _DECIMAL = re.compile(rb"[0-7]*"), re.compile(rb"[+-]?[0-9]+")
# Name, mode, owner, group, size, mtime, checksum, type, link, magic with version, device numbers,
# prefix.
_FIELDS = struct.Struct("100s8s8s8s12s12s8ss100s8s64x8s8s155s12x")
_USTAR, _GNU = b"ustar\0", b"ustar  \0"
_Moment = TypeVar("_Moment", int, int | None)
_TIME = re.compile(rb"([+-]?[0-9]+)(?:\.([0-9]*))?")


@dataclass(slots=True)
class Member:
    """One member. Times are nanoseconds since 1970; None where no header gives them."""

    header: bytes
    """All bytes between the payload before and this one: padding, extension headers, header."""
    name: bytes
    kind: str
    link_name: bytes
    mode: int
    size: int
    """As the header says; only regular files have a payload."""
    uid: int
    gid: int
    mtime: int
    atime: int | None
    ctime: int | None
    dev_major: int
    dev_minor: int
    xattrs: dict[bytes, bytes]

    @property
    def payload_bytes(self) -> int:
        return self.size if self.kind == "reg" else 0


class TarReader:
    """Pull parser over pieces of any size.

    Between two members, take all of `payload()`; after the last, `rest()`.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._input = _Input(pieces)
        self._left = 0  # of the payload of the member at hand
        self._padding = 0  # that follows it
        self.end = b""
        """After the last member: its padding, and blocks that end the archive, if any."""

    def members(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            self._left = member.payload_bytes
            self._padding = -self._left % BLOCK
            yield member

    def whole_payload(self) -> bytes:
        """All content of the last member; for small ones."""
        wanted, self._left = self._left, 0
        content = self._input.exactly(wanted)
        if len(content) < wanted:
            raise UnsupportedLayerError(_CUT_OFF)
        return content

    def payload(self) -> Iterator[bytes]:
        """The content of the last member."""
        while self._left:
            piece = self._input.some(min(self._left, _PIECE))
            if not piece:
                raise UnsupportedLayerError(_CUT_OFF)
            self._left -= len(piece)
            yield piece

    def rest(self) -> Iterator[bytes]:
        """What follows the end of the archive, in pieces that depend on nothing but its size."""
        while piece := self._input.exactly(_REST_BYTES):
            yield piece

    def _next(self) -> Member | None:
        padding = self._padding
        header = self._input.exactly(padding + BLOCK)
        if len(header) < padding:
            raise UnsupportedLayerError("its tar ends inside the padding of its last file")
        block = header[padding:]
        raw, pax = [header], _NO_RECORDS
        long_name = long_link = b""
        while True:
            if not block or block == _ZEROS:
                self._end(raw, block)
                return None
            if len(block) < BLOCK:
                raise UnsupportedLayerError("its tar ends in the middle of a header")
            flag = block[156:157]
            if flag in _REFUSED:
                raise UnsupportedLayerError(f"its tar has {_REFUSED[flag]}")
            if flag not in _EXTENSIONS:
                return _member(
                    b"".join(raw) if len(raw) > 1 else header, block, pax, long_name, long_link
                )
            _check_sum(block, number(block[148:156]))
            body = self._extension(raw, number(block[124:136]))
            if sum(map(len, raw)) > _HEADERS_BYTES:
                raise UnsupportedLayerError(
                    f"its tar has a member with more than {_HEADERS_BYTES} bytes of headers"
                )
            if flag == b"x":
                pax = pax_records(body)
            elif flag == b"L":
                long_name = _text(body)
            else:
                long_link = _text(body)
            block = self._input.exactly(BLOCK)
            raw.append(block)

    def _extension(self, raw: list[bytes], size: int) -> bytes:
        if not 0 <= size <= _EXTENSION_BYTES:
            raise UnsupportedLayerError(f"its tar has an extension header of {size} bytes")
        body = self._input.exactly(size + -size % BLOCK)
        if len(body) < size + -size % BLOCK:
            raise UnsupportedLayerError("its tar ends in the middle of a header")
        raw.append(body)
        return body[:size]

    def _end(self, raw: list[bytes], block: bytes) -> None:
        """One block of zeros and nothing else ends an archive too."""
        if len(raw) > 1:
            raise UnsupportedLayerError("its tar ends after an extension header")
        second = self._input.exactly(BLOCK) if block else b""
        if second and second != _ZEROS:
            raise UnsupportedLayerError(
                "a single block of zeros in its tar is followed by something else"
            )
        self.end = raw[0] + second


class _Input:
    """Pieces of bytes, read in other portions."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = b""
        self._at = 0

    def some(self, most: int) -> bytes:
        """Read at least one byte, unless there are none."""
        while self._at == len(self._piece):
            if (piece := next(self._pieces, None)) is None:
                return b""
            self._piece, self._at = piece, 0
        start = self._at
        self._at = min(start + most, len(self._piece))
        return self._piece[start : self._at]

    def exactly(self, size: int) -> bytes:
        """Fewer only at the end."""
        found = self.some(size) if size else b""
        if len(found) == size:
            return found
        parts, missing = [found], size - len(found)
        while missing and (part := self.some(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def _member(
    header: bytes, block: bytes, pax: dict[bytes, bytes], long_name: bytes, long_link: bytes
) -> Member:
    fields = _FIELDS.unpack(block)
    name, mode, uid, gid, size, mtime, checksum, flag, link_name, magic, major, minor, prefix = (
        fields
    )
    _check_sum(block, number(checksum))
    name, link_name = long_name or _text(name), long_link or _text(link_name)
    atime = ctime = None
    dev_major = dev_minor = 0
    if magic[:6] == _USTAR or magic == _GNU:
        dev_major, dev_minor = number(major), number(minor)
        if magic == _GNU:
            prefix, atime, ctime = _beyond_gnu(block)
        elif block[508:512] == b"tar\0":  # star's
            atime, ctime = number(block[476:488]) * 10**9, number(block[488:500]) * 10**9
            prefix = prefix[:131]
        prefix = _text(prefix)
        if prefix and not long_name:
            name = prefix + b"/" + name
    if flag not in _KINDS:
        raise UnsupportedLayerError(f"its tar has a member of type {flag!r}")
    member = Member(
        header, name, _KINDS[flag], link_name, number(mode), number(size), number(uid), number(gid),
        number(mtime) * 10**9, atime, ctime, dev_major, dev_minor, _NO_RECORDS,
    )  # fmt: skip
    if pax:
        _extend(member, pax, is_named=bool(long_name), is_linked=bool(long_link))
    if flag == b"\0" and member.name.endswith(b"/"):
        member.kind = "dir"
    if member.size < 0:
        raise UnsupportedLayerError(f"its tar has a member of {member.size} bytes")
    return member


def _extend(member: Member, pax: dict[bytes, bytes], *, is_named: bool, is_linked: bool) -> None:
    """What a PAX header says goes before the header itself, and a GNU long name before both."""
    if any(key.startswith(b"GNU.sparse.") for key in pax):
        raise UnsupportedLayerError("its tar has a PAX sparse file")
    if not is_named:
        member.name = pax.get(b"path") or member.name
    if not is_linked:
        member.link_name = pax.get(b"linkpath") or member.link_name
    member.size = _decimal(pax, b"size", member.size)
    member.uid, member.gid = _decimal(pax, b"uid", member.uid), _decimal(pax, b"gid", member.gid)
    member.mtime = _time(pax, b"mtime", member.mtime)
    member.atime = _time(pax, b"atime", member.atime)
    member.ctime = _time(pax, b"ctime", member.ctime)
    member.xattrs = {
        key.removeprefix(_XATTR): value
        for key, value in pax.items()
        if key.startswith(_XATTR) and value
    }


def _check_sum(block: bytes, stated: int) -> None:
    """Signed or unsigned, as in Go."""
    # Adler-32 begins with 1 plus the sum of all bytes modulo 65,521, which 256 bytes never reach;
    # `sum` takes ten times as long.
    plain = (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2
    plain += 8 * ord(" ") - sum(block[148:156])
    if stated != plain:
        high = sum(byte >= 0x80 for byte in block) - sum(byte >= 0x80 for byte in block[148:156])
        if stated != plain - 256 * high:
            raise UnsupportedLayerError("its tar has a header with a wrong checksum")


def _beyond_gnu(block: bytes) -> tuple[bytes, int | None, int | None]:
    """Prefix of the name, access and change time."""
    fields = block[345:357], block[357:369]
    try:
        atime, ctime = (number(one) * 10**9 if one[0] else None for one in fields)
    except UnsupportedLayerError:  # Go before 1.8 wrote a prefix there
        prefix = _text(block[345:500])
        return prefix if prefix.isascii() else b"", None, None
    return b"", atime, ctime


def _text(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


@lru_cache(maxsize=1 << 12)  # most fields of most headers are the same
def number(data: bytes) -> int:
    if data[0] >= 0x80:  # base 256, two's complement below the marker bit
        bits = 8 * len(data) - 1
        value = int.from_bytes(data, "big") & ((1 << bits) - 1)
        value -= (1 << bits) if data[0] & 0x40 else 0
        if not -_LARGEST - 1 <= value <= _LARGEST:
            raise UnsupportedLayerError("its tar has a number of more than 64 bits")
        return value
    digits = _text(data.strip(b" \0"))
    if not _OCTAL.fullmatch(digits):
        raise UnsupportedLayerError(f"its tar has {digits!r} where an octal number belongs")
    return int(digits or b"0", 8)


def _decimal(pax: dict[bytes, bytes], key: bytes, otherwise: int) -> int:
    if not (text := pax.get(key)):
        return otherwise
    if not _DECIMAL.fullmatch(text) or len(text) > 20 or abs(int(text)) > _LARGEST:
        raise UnsupportedLayerError(f"its tar has {text!r:.60} where a decimal number belongs")
    return int(text)


def _time(pax: dict[bytes, bytes], key: bytes, otherwise: _Moment) -> int | _Moment:
    if not (text := pax.get(key)):
        return otherwise
    found = _TIME.fullmatch(text)
    if not found or len(found[1]) > 20:
        raise UnsupportedLayerError(f"its tar has the time {text!r:.60}")
    nanoseconds = int((found[2] or b"")[:9].ljust(9, b"0"))
    return int(found[1]) * 10**9 + (-nanoseconds if text.startswith(b"-") else nanoseconds)


def pax_records(body: bytes) -> dict[bytes, bytes]:
    """Records of `LENGTH KEY=VALUE` and a newline; of equal keys the last one counts."""
    records: dict[bytes, bytes] = {}
    while body:
        digits, blank, _ = body.partition(b" ")
        size = int(digits) if digits.isdigit() and len(digits) <= 7 else 0
        key, equals, value = body[len(digits) + 1 : size - 1].partition(b"=")
        wrong_nul = b"\0" in (value if key in (b"path", b"linkpath", b"uname", b"gname") else key)
        if (
            not (blank and key and equals)
            or size > len(body)
            or body[size - 1 : size] != b"\n"
            or wrong_nul
        ):
            raise UnsupportedLayerError("its tar has a malformed PAX header")
        records[key] = value
        body = body[size:]
    return records
