"""Decompress whole layer blobs into their tar: zstd, gzip or plain. The only file that knows isal.

isal (extra `zpull[convert]`) unpacks gzip at 450 MB/s where zlib does at 200. It passes over flags
of a header that no writer sets; what comes out is the same, and proved by its digest either way.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Protocol, cast

from zchunked.errors import FormatError, LimitError
from zchunked.formats.frames import zstd as frames
from zchunked.limits import DEFAULT_LIMITS, Limits

_BLOCK = 256 << 10
_SHORT_STEP, _LONG_STEP = 2 << 10, 64 << 10  # compressed bytes
_GZIP, _GZIP_WRAPPED = b"\x1f\x8b", 31
_ZSTD = (b"\x28\xb5\x2f\xfd",)


class _Member(Protocol):
    """A gzip member that is being unpacked, as `zlib.decompressobj` makes it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes: ...


@cache
def fastest_inflate() -> tuple[Callable[[int], _Member], type[Exception]]:
    """How to begin a member, and what a broken one raises. Imported late: few layers are gzip."""
    try:
        from isal import isal_zlib  # noqa: PLC0415
    except ImportError:
        return zlib.decompressobj, zlib.error
    return isal_zlib.decompressobj, cast("type[Exception]", isal_zlib.error)


def unpacked(pieces: Iterable[bytes], limits: Limits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """The tar inside a whole layer blob: zstd, gzip or plain, by its first bytes."""
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
            raise LimitError(f"the layer's tar has more than {limits.tar_bytes} bytes, the limit")
        yield piece


def _gunzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Every member, however many and however small; zeros behind the last one are padding.

    zlib copies what it did not use of its input, at each step and at each member's end: so a step
    takes little at first and more while the member goes on. Then members of 20 bytes cost no more
    than long ones.
    """
    begin, broken = fastest_inflate()
    member: _Member | None = None
    for piece in pieces:
        data = memoryview(piece)
        at, step = 0, _SHORT_STEP
        while at < len(data):
            if member is None:
                if not data[at]:  # behind a member, for the first one has begun with its magic
                    zeros = bytes(data[at : at + _SHORT_STEP])
                    at += len(zeros) - len(zeros.lstrip(b"\0"))
                    continue
                member, step = begin(_GZIP_WRAPPED), _SHORT_STEP
            taken = data[at : at + step]
            try:
                yield from _inflated(member, taken)
            except broken as error:
                raise FormatError(f"broken gzip layer: {error}") from error
            at += len(taken) - len(member.unused_data)
            if member.eof:
                member = None
            else:
                step = min(4 * step, _LONG_STEP)
    if member is not None:
        raise FormatError("the gzip layer ends in the middle")


def _inflated(member: _Member, data: bytes | memoryview) -> Iterator[bytes]:
    """All output of this input, in bounded pieces; bytes behind the member's end are left in it."""
    while out := member.decompress(data, _BLOCK):
        yield out
        if member.eof:
            return
        data = member.unconsumed_tail
        if not data and len(out) < _BLOCK:
            return
