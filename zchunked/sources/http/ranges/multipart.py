"""Parse multipart/byteranges as it arrives. Pure.

A part's length is stated by its Content-Range: its bytes are counted and never searched, a boundary
in them is data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from zchunked.errors import FormatError
from zchunked.interfaces import Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.ranges import ByteRange, parse_content_range

_KIND = rb"(?:content-type:[^\r\n]*\r\n)?"
_PLACE = rb"content-range: bytes (\d{1,19})-(\d{1,19})/(\d{1,19})\r\n"
_USUAL = re.compile(rb"\r\n" + _KIND + _PLACE + _KIND + rb"\r\n", re.IGNORECASE)
"""The head of a part behind its boundary, as most servers write it; others are parsed with care."""
_HEAD = re.compile(rb"[ \t]*\r?\n((?:[^\r\n]+\r?\n)*)\r?\n")
_BEHIND_FIRST = re.compile(rb"--|[ \t]*\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*([^\r\n]*)")


class PartReader:
    """Fed the body in pieces of any size, it returns the blob's bytes. Holds one part's headers.

    Parts may be fewer than `most` (coalesced, or left out) and in any order. All must be of a blob
    of `size` bytes and lie within `hull`. What precedes the first part and follows the last is
    skipped.
    """

    def __init__(
        self,
        boundary: bytes,
        size: int,
        hull: ByteRange,
        most: int,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._delimiter = b"--" + boundary
        self._size, self._hull, self._most = size, hull, most
        self.begun = 0
        """How many parts have begun."""
        self._usual, self._stated = b"\r\n" + self._delimiter, b"%d" % size
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
        return self._hull.size + (self._most + 2) * self._head_bytes

    def feed(self, piece: bytes) -> Iterator[Pieces]:
        """The blob's bytes in this piece, at once, if there are any.

        Raises FormatError, behind that, at the first thing out of order.
        """
        data, self._held = self._held + piece if self._held else piece, b""
        pieces: list[tuple[int, memoryview]] = []
        try:
            self._take(data, pieces)
        except FormatError:
            if pieces:
                yield pieces
            raise
        if pieces:
            yield pieces

    def _take(self, data: bytes, pieces: list[tuple[int, memoryview]]) -> None:
        view, at = memoryview(data), 0
        while at < len(data) and not self._has_ended:
            if self._left:
                part = view[at : at + self._left]
                pieces.append((self._at, part))
                at += len(part)
                self._at += len(part)
                self._left -= len(part)
                if self._left:
                    return
            elif not self._has_begun and (first := self._first(data)) >= 0:
                at, self._has_begun = first, True
            after = (
                self._open_usual(data, at) or self._open_part(data, at) if self._has_begun else None
            )
            if after is None:
                if len(data) - at > self._head_bytes:
                    raise FormatError(
                        f"no boundary within {self._head_bytes} bytes, but {data[at : at + 60]!r}"
                    )
                self._held = data[at:]
                return
            at = after

    def end(self) -> None:
        """Call when the body has ended. Raises FormatError unless it ended in order."""
        self.is_cut_short = self._has_begun and not self._has_ended
        if self._left:
            raise FormatError(
                f"the multipart body ends {self._left} bytes before the end of a part"
            )
        if not self._has_ended:
            raise FormatError("the multipart body ends without its last boundary")

    def _first(self, data: bytes) -> int:
        """Where the line end before the first boundary is, or 0; below 0 when there is none yet."""
        if data.startswith(self._delimiter) and _BEHIND_FIRST.match(data, len(self._delimiter)):
            return 0
        line = b"\n" + self._delimiter
        at = data.find(line)
        while at >= 0 and not _BEHIND_FIRST.match(data, at + len(line)):
            at = data.find(line, at + 1)
        return at

    def _open_usual(self, data: bytes, at: int) -> int | None:
        """As `_open_part`, for what nearly all servers send; None for all else, good or bad."""
        if not data.startswith(self._usual, at):
            return None
        head = _USUAL.match(data, at + len(self._usual))
        if head is None or head[3] != self._stated or head.end() - at > self._head_bytes:
            return None
        start, end = int(head[1]), int(head[2]) + 1
        if not start < end <= self._size:
            return None
        self._begin(start, end)
        return head.end()

    def _open_part(self, data: bytes, at: int) -> int | None:
        """Where the next part's bytes begin, or the end; None until all of its headers are here."""
        line_end = _LINE_END.match(data, at)
        behind = line_end.end() if line_end else at
        if not data.startswith(self._delimiter, behind):
            return None
        behind += len(self._delimiter)
        head = _HEAD.match(data, behind)
        if head is not None and head.end() - at <= self._head_bytes:
            span, total = parse_content_range(_content_range(head[1]))
            if total not in (None, self._size):
                raise FormatError(f"a part of a blob of {total} bytes; expected {self._size}")
            self._begin(span.start, span.end)
            return head.end()
        if data.startswith(b"--", behind):
            self._has_ended = True
            return len(data)
        return None

    def _begin(self, start: int, end: int) -> None:
        if start < self._hull.start or end > self._hull.end:
            raise FormatError(
                f"a part holds {ByteRange(start, end)}, of which nothing outside {self._hull} "
                "was asked for"
            )
        self.begun += 1
        self._left_bytes -= end - start
        if self.begun > self._most or self._left_bytes < 0:
            raise FormatError("more parts, or more bytes in them, than were asked for")
        self._at, self._left = start, end - start


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
