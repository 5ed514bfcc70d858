"""Members and chunks → the TOC's JSON and the tar-split's lines, compressed as they are made (format: CRFS-style JSON).

Both are written as containers/storage writes them: zero values left out, `<`, `>` and `&` escaped, times in RFC 3339.
"""

from __future__ import annotations

import base64
import hashlib
from binascii import b2a_base64
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from zchunked.errors import UnsupportedLayerError
from zchunked.formats import zstd
from zchunked.formats.tar_reader import Member
from zchunked.formats.toc_json import Entry

_BATCH_BYTES = 256 << 10  # of text, compressed at a time
# Every update fetches both. Digests make most of a TOC, which level 1 writes 4 % smaller than level 9 does; of a
# tar-split, level 9 makes 16 % less than level 3.
_TOC_LEVEL, _TARSPLIT_LEVEL = 1, 9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST = (1 << 63) - 1
_GO_ESCAPES = [(b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")]
_GO_ESCAPES += [(b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029")]


class Chunk(NamedTuple):
    """A chunk as it lies in the blob from `start` on; `size` and `digest` are those of its content."""

    start: int
    size: int
    is_hole: bool
    digest: str


class Text:
    """Text that is compressed as it comes: one frame, and what an annotation says about it."""

    def __init__(self, level: int, most_bytes: int, what: str) -> None:
        self._encoder = zstd.FrameEncoder(level)
        self._most_bytes, self._what = most_bytes, what
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._frames: list[bytes] = []
        self.decoded_bytes = 0

    def add(self, text: bytes) -> None:
        self._held.append(text)
        self._held_bytes += len(text)
        if self._held_bytes > _BATCH_BYTES:
            self._compress()

    def _compress(self) -> None:
        self._frames.append(self._encoder.feed(b"".join(self._held)))
        self.decoded_bytes += self._held_bytes
        self._held, self._held_bytes = [], 0
        if self.decoded_bytes > self._most_bytes:
            raise UnsupportedLayerError(f"its {self._what} would have more than {self._most_bytes} bytes")

    def finish(self) -> bytes:
        self._compress()
        return b"".join([*self._frames, self._encoder.finish()])


class TocWriter:
    """The table of contents, an entry at a time. Raises UnsupportedLayerError on what none can say."""

    def __init__(self, most_bytes: int) -> None:
        self.text = Text(_TOC_LEVEL, most_bytes, "table of contents")
        self.entries_count = 0

    def member(self, member: Member, chunks: list[Chunk], end: int, digest: str) -> None:
        """`digest` is the whole file's, `end` the offset behind its last frame; without chunks neither counts."""
        entry = entry_of(member)
        if not chunks:
            self._add(entry)
            return
        first, *others = chunks
        entry.digest, entry.offset, entry.end_offset = digest, first.start, end
        if not others:
            self._add(entry)
            return
        entry.chunk_size, entry.chunk_digest = first.size, first.digest
        entry.chunk_type = "zeros" if first.is_hole else UNSET
        self._add(entry)
        offset = first.size
        for chunk in others:
            self._add(
                Entry(
                    "chunk",
                    name=entry.name,
                    offset=chunk.start,
                    chunk_size=chunk.size,
                    chunk_offset=offset,
                    chunk_digest=chunk.digest,
                    chunk_type="zeros" if chunk.is_hole else UNSET,
                )
            )
            offset += chunk.size

    def _add(self, entry: Entry) -> None:
        self.entries_count += 1
        text = msgspec.json.encode(entry)
        for plain, escaped in _GO_ESCAPES:
            if plain in text:
                text = text.replace(plain, escaped)
        self.text.add(b"," + text if self.entries_count > 1 else b'{"version":1,"entries":[' + text)

    def finish(self, tarsplit_frame: bytes) -> bytes:
        """The compressed TOC, which vouches for the compressed tar-split."""
        self.text.add(b"]" if self.entries_count else b'{"version":1,"entries":null')
        digest = hashlib.sha256(tarsplit_frame).hexdigest()
        self.text.add(b',"tarSplitDigest":"sha256:%b"}' % digest.encode())
        return self.text.finish()


def entry_of(member: Member) -> Entry:
    """All that a header says. Raises UnsupportedLayerError on what JSON or its readers cannot take."""
    numbers = member.mode, member.uid, member.gid, member.dev_major, member.dev_minor
    if not 0 <= min(numbers) <= max(numbers) <= _LARGEST:
        raise UnsupportedLayerError("its tar has negative owners, modes or devices")
    if member.size and member.kind != "reg":
        raise UnsupportedLayerError(f"its tar has a {member.kind} that states a size")
    entry = Entry(
        member.kind,
        name=_text(member.name),
        link_name=_text(member.link_name) or UNSET,
        mode=member.mode or UNSET,
        size=member.size or UNSET,
        uid=member.uid or UNSET,
        gid=member.gid or UNSET,
        modtime=moment(member.mtime) or UNSET,
        dev_major=member.dev_major or UNSET,
        dev_minor=member.dev_minor or UNSET,
    )
    if member.atime is not None:
        entry.accesstime = moment(member.atime) or UNSET
    if member.ctime is not None:
        entry.changetime = moment(member.ctime) or UNSET
    if member.xattrs:
        pairs = sorted(member.xattrs.items())
        entry.xattrs = {_text(name): base64.b64encode(value).decode() for name, value in pairs}
    return entry


def _text(data: bytes) -> str:
    """containers/storage replaces bytes that are not UTF-8 in the TOC, and then misses the name in the tar-split."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UnsupportedLayerError(f"its tar has a name that is not UTF-8: {data!r:.80}") from None


@lru_cache(maxsize=1 << 14)
def moment(nanoseconds: int) -> str:
    """RFC 3339 in UTC; empty for the first moment of year 1, which Go takes for no time at all."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    try:
        clock = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
    except OverflowError:
        raise UnsupportedLayerError("its tar has a time outside of the years 1 to 9999") from None
    decimals = f".{fraction:09d}".rstrip("0") if fraction else ""
    return "" if clock + decimals == "0001-01-01T00:00:00" else clock + decimals + "Z"


class TarSplitWriter:
    """The recipe of the tar around its payloads, a line at a time (vbatts/tar-split)."""

    def __init__(self, most_bytes: int) -> None:
        self.text = Text(_TARSPLIT_LEVEL, most_bytes, "tar-split")
        self._position = 0

    def segment(self, data: bytes) -> None:
        """Bytes of the tar as they are."""
        if data:
            self._add(b'{"type":2,"payload":"%b","position":%d}\n' % (b2a_base64(data, newline=False), self._position))

    def file(self, member: Member, crc: int) -> None:
        """The place of a payload, or of a member without one. The CRC is the payload's CRC-64/GO-ISO."""
        name = b'"name":%b,' % msgspec.json.encode(_text(member.name)) if member.name else b""
        for plain, escaped in _GO_ESCAPES:
            name = name.replace(plain, escaped) if plain in name else name
        size, payload = b"", b"null"
        if member.payload_bytes:
            size = b'"size":%d,' % member.payload_bytes
            payload = b'"%b"' % b2a_base64(crc.to_bytes(8, "big"), newline=False)
        self._add(b'{"type":1,%b%b"payload":%b,"position":%d}\n' % (name, size, payload, self._position))

    def _add(self, line: bytes) -> None:
        self._position += 1
        self.text.add(line)

    def finish(self) -> bytes:
        return self.text.finish()
