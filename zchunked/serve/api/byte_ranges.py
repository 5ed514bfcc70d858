"""Parse the Range header of a request, and make the response's body (RFC 9110, 14). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from zchunked.ranges import ByteRange

_RANGES = re.compile(r"\s*bytes\s*=\s*(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)
_ONE = re.compile(r"\s*(\d{1,19})\s*-\s*(\d{0,19})\s*|\s*-\s*(\d{1,19})\s*", re.ASCII)
_MOST_SPANS = 1024  # podman asks for up to 1,023
_LONGEST_HEADER = 64 << 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a blob is wanted. `is_to_end`: the only span goes to its end, wherever."""

    spans: tuple[ByteRange, ...]
    is_to_end: bool = False


class UnsatisfiableError(ValueError):
    """None of the ranges lies in the blob (RFC 9110, 15.5.17)."""


def parse_range(header: str | None, size: int) -> Wanted | None:
    """Parse a Range header; None for the whole blob: none given, or invalid (RFC 9110, 14.2).

    Spans that overlap or are out of order are sent whole as well: that costs the client bytes and
    never correctness.
    """
    found = _RANGES.fullmatch(header[:_LONGEST_HEADER]) if header else None
    if found is None:
        return None
    spans: list[ByteRange] = []
    is_to_end = False
    texts = found[1].split(",")
    if len(texts) > _MOST_SPANS:
        return None
    for text in texts:
        one = _ONE.fullmatch(text)
        if one is None:
            return None
        if one[3] is not None:
            start, end = max(size - int(one[3]), 0), size
        else:
            start = int(one[1])
            end = min(int(one[2]) + 1, size) if one[2] else size
            is_to_end = not one[2]
            if one[2] and int(one[2]) < start:
                return None
        if start < end:
            spans.append(ByteRange(start, end))
    if not spans:
        raise UnsatisfiableError
    if any(after.start < before.end for before, after in pairwise(spans)):
        return None
    return Wanted(tuple(spans), is_to_end=is_to_end and len(texts) == 1)


@dataclass(frozen=True, slots=True)
class Multipart:
    """The body of a 206 to several spans (multipart/byteranges)."""

    spans: tuple[ByteRange, ...]
    size: int
    boundary: str

    @property
    def content_type(self) -> str:
        return f"multipart/byteranges; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """Bytes of the whole body."""
        return sum(len(self._head(span)) + span.size + 2 for span in self.spans) + len(self._end())

    def body(self, read: Callable[[ByteRange], Iterator[bytes]]) -> Iterator[bytes]:
        """`read` gives the bytes of one span, in order."""
        for span in self.spans:
            yield self._head(span)
            yield from read(span)
            yield b"\r\n"
        yield self._end()

    def _head(self, span: ByteRange) -> bytes:
        return (
            f"--{self.boundary}\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Range: {content_range(span, self.size)}\r\n\r\n"
        ).encode()

    def _end(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()


def content_range(span: ByteRange, size: int) -> str:
    """The value of Content-Range for one span of a blob of `size` bytes."""
    return f"bytes {span.start}-{span.end - 1}/{size}"
