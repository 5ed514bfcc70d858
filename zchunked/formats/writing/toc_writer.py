"""Write a layer's TOC (JSON) and tar-split (lines) from members and chunks, compressed at once.

Both are written as containers/storage writes them: zero values left out, `<`, `>` and `&` escaped,
times in RFC 3339.
"""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import msgspec

from zchunked.errors import UnsupportedLayerError
from zchunked.formats.frames import zstd
from zchunked.formats.tars.tar_reader import Member

_BATCH_BYTES = 256 << 10  # of text, compressed at a time
# Every update fetches both. Digests make most of a TOC, which level 1 writes 4 % smaller than level
# 9 does. Of a tar-split of 37,000 files level 8 makes 0.8 % more than level 9, and 17 % less than
# level 3. Level 9 looks things up in twice the memory, which what goes on beside it drives out of
# the caches: 1.13 s of the 4.0 s of CPU for 60 MiB of `node_modules`, where level 8 takes 0.50 s.
_TOC_LEVEL, _TARSPLIT_LEVEL = 1, 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST = (1 << 63) - 1
_GO_ESCAPES = [(b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")]
_GO_ESCAPES += [(b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029")]


Frames = list[bytes]
Submit = Callable[[Callable[[], Frames]], Callable[[], Frames]]
"""Have a function called, perhaps by another thread; what it returns waits for the result."""


def at_once(work: Callable[[], Frames]) -> Callable[[], Frames]:
    done = work()
    return lambda: done


class Chunk(NamedTuple):
    """A chunk that lies in the blob from `start` on; `size` and `digest` of its content."""

    start: int
    size: int
    is_hole: bool
    digest: str


class Text:
    """Text that is compressed as it arrives: one frame, and what an annotation says about it."""

    def __init__(self, level: int, most_bytes: int, what: str, submit: Submit) -> None:
        self._encoder = zstd.FrameEncoder(level)
        self._most_bytes, self._what, self._submit = most_bytes, what, submit
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._frames: Frames = []
        self._work: Callable[[], Frames] = list  # under way, one at a time
        self.decoded_bytes = 0

    def add(self, text: bytes) -> None:
        self._held.append(text)
        self._held_bytes += len(text)
        if self._held_bytes > _BATCH_BYTES:
            self._compress()

    def _compress(self) -> None:
        self.decoded_bytes += self._held_bytes
        if self.decoded_bytes > self._most_bytes:
            raise UnsupportedLayerError(
                f"its {self._what} would have more than {self._most_bytes} bytes"
            )
        self._frames += self._work()
        held, self._held, self._held_bytes = b"".join(self._held), [], 0
        self._work = self._submit(lambda: [self._encoder.feed(held)])

    def finish(self) -> bytes:
        self._compress()
        return b"".join([*self._frames, *self._work(), self._encoder.finish()])


class TocWriter:
    """The TOC, an entry at a time. Raises UnsupportedLayerError on what no TOC can express."""

    def __init__(self, most_bytes: int, submit: Submit = at_once) -> None:
        self.text = Text(_TOC_LEVEL, most_bytes, "table of contents", submit)
        self.entries_count = 0

    def member(self, member: Member, chunks: Sequence[Chunk], end: int, digest: str) -> None:
        """`digest`: the whole file's; `end`: offset behind its last frame; unused if no chunks."""
        text = _described(member)
        if not chunks:
            self._add(b"%b}" % text)
            return
        first, *others = chunks
        text = b'%b,"digest":"%b","offset":%d,"endOffset":%d' % (
            text,
            digest.encode(),
            first.start,
            end,
        )
        if not others:
            self._add(b"%b}" % text)
            return
        place = b',"chunkSize":%d' % first.size
        self._add(text + place + _chunk_digest(first))
        name, offset = quoted(member.name), first.size
        for chunk in others:
            place = b'"offset":%d,"chunkSize":%d,"chunkOffset":%d' % (
                chunk.start,
                chunk.size,
                offset,
            )
            self._add(b'{"type":"chunk","name":%b,%b%b' % (name, place, _chunk_digest(chunk)))
            offset += chunk.size

    def _add(self, text: bytes) -> None:
        self.text.add((b"," if self.entries_count else b'{"version":1,"entries":[') + text)
        self.entries_count += 1

    def finish(self, tarsplit_frame: bytes) -> bytes:
        """The compressed TOC, which vouches for the compressed tar-split."""
        self.text.add(b"]" if self.entries_count else b'{"version":1,"entries":null')
        digest = hashlib.sha256(tarsplit_frame).hexdigest()
        self.text.add(b',"tarSplitDigest":"sha256:%b"}' % digest.encode())
        return self.text.finish()


def _chunk_digest(chunk: Chunk) -> bytes:
    """The end of an entry of a file that has several chunks."""
    kind = b',"chunkType":"zeros"' if chunk.is_hole else b""
    return b',"chunkDigest":"%b"%b}' % (chunk.digest.encode(), kind)


def _described(member: Member) -> bytes:
    """The entry of a header, an open JSON object. UnsupportedLayerError where JSON has no way.

    Made by hand: an entry as an object, encoded, took three times as long.
    """
    numbers = member.mode, member.uid, member.gid, member.dev_major, member.dev_minor
    if not 0 <= min(numbers) <= max(numbers) <= _LARGEST:
        raise UnsupportedLayerError("its tar has negative owners, modes or devices")
    if member.size and member.kind != "reg":
        raise UnsupportedLayerError(f"its tar has a {member.kind} that states a size")
    said = [b'{"type":"%b","name":%b' % (member.kind.encode(), quoted(member.name))]
    if member.link_name:
        said.append(b'"linkName":%b' % quoted(member.link_name))
    if member.mode:
        said.append(b'"mode":%d' % member.mode)
    if member.size:
        said.append(b'"size":%d' % member.size)
    if member.uid:
        said.append(b'"uid":%d' % member.uid)
    if member.gid:
        said.append(b'"gid":%d' % member.gid)
    if text := moment(member.mtime):
        said.append(b'"modtime":"%b"' % text)
    said += _rarely_described(member)
    return b",".join(said)


def _rarely_described(member: Member) -> Iterator[bytes]:
    """What few headers say."""
    if member.atime is not None and (text := moment(member.atime)):
        yield b'"accesstime":"%b"' % text
    if member.ctime is not None and (text := moment(member.ctime)):
        yield b'"changetime":"%b"' % text
    if member.dev_major:
        yield b'"devMajor":%d' % member.dev_major
    if member.dev_minor:
        yield b'"devMinor":%d' % member.dev_minor
    if member.xattrs:
        pairs = sorted(member.xattrs.items())
        values = [
            b'%b:"%b"' % (quoted(name), b2a_base64(value, newline=False)) for name, value in pairs
        ]
        yield b'"xattrs":{%b}' % b",".join(values)


@lru_cache(maxsize=1 << 12)  # the tar-split has every name too
def quoted(data: bytes) -> bytes:
    """A JSON string.

    containers/storage replaces bytes that are not UTF-8 in the TOC, and then misses the name in the
    tar-split.
    """
    try:
        text = msgspec.json.encode(data.decode())
    except UnicodeDecodeError:
        raise UnsupportedLayerError(f"its tar has a name that is not UTF-8: {data!r:.80}") from None
    for plain, escaped in _GO_ESCAPES:
        if plain in text:
            text = text.replace(plain, escaped)
    return text


@lru_cache(maxsize=1 << 14)
def moment(nanoseconds: int) -> bytes:
    """RFC 3339 in UTC; empty for the first moment of year 1, which Go takes for no time at all."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    try:
        clock = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
    except OverflowError:
        raise UnsupportedLayerError("its tar has a time outside of the years 1 to 9999") from None
    decimals = f".{fraction:09d}".rstrip("0") if fraction else ""
    return b"" if clock + decimals == "0001-01-01T00:00:00" else f"{clock}{decimals}Z".encode()


class TarSplitWriter:
    """The recipe of the tar around its payloads, a line at a time (vbatts/tar-split)."""

    def __init__(self, most_bytes: int, submit: Submit = at_once) -> None:
        self.text = Text(_TARSPLIT_LEVEL, most_bytes, "tar-split", submit)
        self._position = 0

    def segment(self, data: bytes) -> None:
        """Bytes of the tar as they are."""
        if data:
            self._add(
                b'{"type":2,"payload":"%b","position":%d}\n'
                % (b2a_base64(data, newline=False), self._position)
            )

    def file(self, member: Member, crc: int) -> None:
        """The place of a payload, or of a member without one.

        `crc`: the payload's CRC-64/GO-ISO.
        """
        name = b'"name":%b,' % quoted(member.name) if member.name else b""
        size, payload = b"", b"null"
        if member.payload_bytes:
            size = b'"size":%d,' % member.payload_bytes
            payload = b'"%b"' % b2a_base64(crc.to_bytes(8, "big"), newline=False)
        self._add(
            b'{"type":1,%b%b"payload":%b,"position":%d}\n' % (name, size, payload, self._position)
        )

    def _add(self, line: bytes) -> None:
        self._position += 1
        self.text.add(line)

    def finish(self) -> bytes:
        return self.text.finish()
