"""Rewrite a tar's headers to depend less on when and who made it, so that rebuilds share frames.

Only header bytes change that must: names, order, numbers of owners and contents stay, and all that
no option is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from zchunked.errors import UnsupportedLayerError
from zchunked.formats.tars.tar_reader import BLOCK, Member, TarReader, number, pax_records

_TIMES = (b"mtime", b"atime", b"ctime")
_BY_WHOM = (b"uname", b"gname", b"atime", b"ctime")
_NAMES = slice(265, 329)  # of user and group, in ustar and GNU headers
# as Python's tarfile calls them all; GNU tar's has the number of its process
_EXTENSION_NAME = b"././@PaxHeader"
_GNU, _GNU_TIMES = b"ustar  \0", ((345, 357), (357, 369))


@dataclass(frozen=True, slots=True)
class TarRewriter:
    """Rewrites headers.

    `latest`: no time after it, in seconds since 1970. `normalize`: neither names of owners nor
    times of access and change, and extension headers without the traces of a process.
    """

    latest: int | None = None
    normalize: bool = False

    def __str__(self) -> str:
        """For memories of what was made with it."""
        words = [f"latest={self.latest}"] if self.latest is not None else []
        return " ".join([*words, *(["normalize"] if self.normalize else [])])

    def __call__(self, tar: Iterable[bytes]) -> Iterator[bytes]:
        """Raises UnsupportedLayerError for a tar that cannot be read to its end."""
        reader = TarReader(tar)
        padding = 0  # of the payload before, and so at the beginning of the next header
        for member in reader.members():
            yield self._header(member, padding)
            yield from reader.payload()
            padding = -member.payload_bytes % BLOCK
        yield reader.end
        yield from reader.rest()

    def _header(self, member: Member, padding: int) -> bytes:
        raw, at = member.header, padding
        parts = [raw[:padding]]
        while at < len(raw):
            block = raw[at : at + BLOCK]
            flag, size = block[156:157], 0
            if flag in (b"x", b"L", b"K") and at + BLOCK < len(raw):
                size = number(block[124:136])
            body = raw[at + BLOCK : at + BLOCK + size]
            at += BLOCK + size + -size % BLOCK
            if flag == b"x" and size:
                parts.append(self._extension(block, body))
            else:
                parts += self._block(block), body, bytes(-size % BLOCK)
        return b"".join(parts)

    def _extension(self, block: bytes, body: bytes) -> bytes:
        """A PAX header; nothing where nothing is left in it."""
        records = pax_records(body)
        kept = {
            key: self._record(key, value)
            for key, value in records.items()
            if not self._is_dropped(key)
        }
        if kept == records and not self.normalize:
            return self._block(block) + body + bytes(-len(body) % BLOCK)
        if not kept:
            return b""
        made = b"".join(_written(key, value) for key, value in kept.items())
        if self.normalize:
            front = _EXTENSION_NAME.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2
            block = front + block[124:136] + b"0" * 11 + b"\0" + block[148:]
        block = block[:124] + b"%011o\0" % len(made) + block[136:]
        return self._block(_signed(block)) + made + bytes(-len(made) % BLOCK)

    def _is_dropped(self, key: bytes) -> bool:
        return self.normalize and key in _BY_WHOM

    def _record(self, key: bytes, value: bytes) -> bytes:
        if self.latest is None or key not in _TIMES or not value:
            return value
        whole, _, fraction = value.partition(b".")
        try:
            is_later = int(whole) > self.latest or (
                int(whole) == self.latest and fraction.strip(b"0") != b""
            )
        except ValueError:
            raise UnsupportedLayerError(f"its tar has the time {value!r:.60}") from None
        return b"%d" % self.latest if is_later else value

    def _block(self, block: bytes) -> bytes:
        """A header block, with its checksum made anew where it changed."""
        changed = self._clamped(block, 136, 148)
        is_gnu, has_names = block[257:265] == _GNU, block[257:262] == b"ustar"
        if is_gnu:
            for start, end in _GNU_TIMES:
                changed = self._clamped(changed, start, end) if changed[start] else changed
                if self.normalize:
                    changed = changed[:start] + bytes(end - start) + changed[end:]
        if self.normalize and has_names:
            changed = (
                changed[: _NAMES.start] + bytes(_NAMES.stop - _NAMES.start) + changed[_NAMES.stop :]
            )
        return block if changed == block else _signed(changed)

    def _clamped(self, block: bytes, start: int, end: int) -> bytes:
        if self.latest is None:
            return block
        if number(block[start:end]) <= self.latest:
            return block
        return block[:start] + b"%0*o\0" % (end - start - 1, self.latest) + block[end:]


def _signed(block: bytes) -> bytes:
    total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def _written(key: bytes, value: bytes) -> bytes:
    """A PAX record; its length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest) + len(str(len(rest)))
    size = len(rest) + len(str(size))
    return b"%d" % size + rest
