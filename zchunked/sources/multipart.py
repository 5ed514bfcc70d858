"""multipart/byteranges, taken apart as it arrives. Pure.

A part's length is stated by its Content-Range: its bytes are counted and never searched, a boundary in them is data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from zchunked.errors import FormatError
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.ranges import ByteRange, parse_content_range

_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*([^\r\n]*)")


class PartReader:
    """Feed it the body in pieces of any size; it hands out the bytes of the blob. Holds at most one part's headers.

    Parts may be fewer than `most` (coalesced, or left out) and in any order. All must be of a blob of `size` bytes
    and lie within `hull`. What precedes the first part and follows the last is skipped.
    """

    def __init__(self, boundary: bytes, size: int, hull: ByteRange, most: int, limits: Limits = DEFAULT_LIMITS) -> None:
        delimiter = re.escape(b"--" + boundary)
        self._first = re.compile(rb"(?:\A|\n)" + delimiter + rb"(?=--|[ \t]*\r?\n)")
        self._head = re.compile(rb"(?:\r?\n)?" + delimiter + rb"[ \t]*\r?\n((?:[^\r\n]+\r?\n)*)\r?\n")
        self._last = re.compile(rb"(?:\r?\n)?" + delimiter + rb"--")
        self._size, self._hull, self._left_parts = size, hull, most
        self._head_bytes = limits.part_header_bytes + len(boundary) + 8  # dashes and line ends
        self._held = b""
        self._at = 0
        """Where in the blob the next byte of the running part belongs."""
        self._left = 0
        """How many bytes the running part still lacks."""
        self._left_bytes = hull.size
        self._has_begun = self._has_ended = False
        self.is_cut_short = False
        """After `end`: all was in order up to where the body ended."""

    @property
    def most_bytes(self) -> int:
        """What a body in order may weigh; what is beyond that may be left unread."""
        return self._hull.size + (self._left_parts + 2) * self._head_bytes

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Position and bytes of the blob that this piece brings. Raises FormatError at the first thing out of order."""
        data, self._held = self._held + piece if self._held else piece, b""
        at = 0
        while at < len(data) and not self._has_ended:
            if self._left:
                come = data[at : at + self._left]
                position = self._at
                at += len(come)
                self._at += len(come)
                self._left -= len(come)
                yield position, come
                continue
            if not self._has_begun and (first := self._first.search(data, at)):
                at, self._has_begun = first.start(), True
            after = self._open_part(data, at) if self._has_begun else None
            if after is None:
                if len(data) - at > self._head_bytes:
                    raise FormatError(f"no boundary within {self._head_bytes} bytes, but {data[at : at + 60]!r}")
                self._held = data[at:]
                return
            at = after

    def end(self) -> None:
        """Call when the body has ended. Raises FormatError unless it ended in order."""
        self.is_cut_short = self._has_begun and not self._has_ended
        if self._left:
            raise FormatError(f"the multipart body ends {self._left} bytes before the end of a part")
        if not self._has_ended:
            raise FormatError("the multipart body ends without its last boundary")

    def _open_part(self, data: bytes, at: int) -> int | None:
        """Where the next part's bytes begin, or the end; None while its headers are not all here."""
        head = self._head.match(data, at)
        if head is not None and head.end() - at <= self._head_bytes:
            self._begin(_content_range(head[1]))
            return head.end()
        if self._last.match(data, at):
            self._has_ended = True
            return len(data)
        return None

    def _begin(self, text: str) -> None:
        span, total = parse_content_range(text)
        if total not in (None, self._size):
            raise FormatError(f"a part is of a blob of {total} bytes, want {self._size}")
        if span.start < self._hull.start or span.end > self._hull.end:
            raise FormatError(f"a part holds {span}, of which nothing outside {self._hull} was asked for")
        self._left_parts -= 1
        self._left_bytes -= span.size
        if self._left_parts < 0 or self._left_bytes < 0:
            raise FormatError("more parts, or more bytes in them, than were asked for")
        self._at, self._left = span.start, span.size


def _content_range(head: bytes) -> str:
    found: str | None = None
    for line in head.splitlines():
        header = _HEADER_LINE.fullmatch(line)
        if header is None:
            raise FormatError(f"a part has the header line {line[:80]!r}")
        if header[1].lower() == b"content-range":
            if found is not None:
                raise FormatError("a part has two Content-Range headers")
            found = header[2].decode("latin-1").strip()
    if found is None:
        raise FormatError("a part has no Content-Range")
    return found
