"""Whole layer blobs → their tar: zstd, gzip or plain."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from zchunked.errors import FormatError, LimitError
from zchunked.formats import zstd as frames
from zchunked.limits import DEFAULT_LIMITS, Limits

_BLOCK = 256 << 10
_GZIP, _ZLIB_GZIP = b"\x1f\x8b", 31
_ZSTD = (b"\x28\xb5\x2f\xfd",)


def unpacked(pieces: Iterable[bytes], limits: Limits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """The tar inside a whole layer blob: zstd, gzip or plain, told by its first bytes as all container tools do."""
    stream = iter(pieces)
    head = b""
    for piece in stream:
        head += piece
        if len(head) >= 4:
            break
    rest = _chain(head, stream)
    if head[:2] == _GZIP:
        return _bounded(_gunzip(rest), limits)
    if head[:4] in _ZSTD or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return frames.stream(rest, limits)
    return _bounded(rest, limits)


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _bounded(pieces: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    left = limits.tar_bytes
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise LimitError(f"the layer's tar has more than the {limits.tar_bytes} bytes we accept")
        yield piece


def _gunzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Every member, to the last byte; zeros behind the last one are padding."""
    member = zlib.decompressobj(_ZLIB_GZIP)
    is_open = False
    for piece in pieces:
        data = piece
        while data:
            if not is_open:
                data = data.lstrip(b"\0") if member.eof else data
                if not data:
                    break
                member, is_open = zlib.decompressobj(_ZLIB_GZIP), True
            try:
                out = member.decompress(data, _BLOCK)
                while out:
                    yield out
                    # At a member's end CPython's unconsumed_tail may repeat unused_data:
                    # the next member would be decoded twice.
                    data = b"" if member.eof else member.unconsumed_tail
                    out = member.decompress(data, _BLOCK) if data or len(out) == _BLOCK else b""
            except zlib.error as error:
                raise FormatError(f"broken gzip layer: {error}") from error
            data = b""
            if member.eof:
                data, is_open = member.unused_data, False
    if is_open:
        raise FormatError("the gzip layer ends in the middle")
