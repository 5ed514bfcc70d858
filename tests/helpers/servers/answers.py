"""Answers as values: what a server is about to send, before faults have their way with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.helpers.build.toc import Json, dumps
from tests.helpers.servers.accounts import Span

MultiRange = Literal[
    "206", "reordered", "coalesced", "single-only-first", "200", "400", "416", "501", "502"
]
"""How several ranges are answered; `coalesced` and `reordered` are 206 as well."""
SingleRange = Literal["206", "200", "200-with-content-range", "200-then-206", "400", "416", "501"]
"""How one range is answered; `200-then-206` is a pull-through cache that fetches first."""

_RANGES = re.compile(r"bytes=(\d*-\d*(?:, *\d*-\d*)*)")


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a body; `at` is its offset in the blob, None if it is not of the blob."""

    data: bytes | memoryview
    at: int | None = None


@dataclass(frozen=True)
class Answer:
    """Status, headers and body, and how they are sent. Content-Length is one of the headers."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: tuple[Piece, ...] = ()
    blob: bytes = b""
    """All of what was asked for, whatever the range."""
    end: Literal["keep", "fin", "rst"] = "keep"
    end_after: int | None = None
    """Body bytes before the end comes; -1 is before the head, None after the whole body."""
    pauses: tuple[tuple[int, float], ...] = ()
    """After so many body bytes (-1: before the head), so many seconds of silence."""
    trickle: tuple[int, float] | None = None
    """So many bytes at a time, so many seconds between."""
    chunked: bool = False

    def with_headers(self, **headers: str | None) -> Answer:
        """Headers by name, with `_` for `-`; None removes one."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        merged = {name: value for name, value in self.headers.items() if name not in named}
        return replace(
            self,
            headers=merged | {name: value for name, value in named.items() if value is not None},
        )

    def with_body(self, *pieces: Piece) -> Answer:
        """With this body and its true length."""
        return replace(self, body=pieces).with_headers(
            Content_Length=str(sum(len(piece.data) for piece in pieces))
        )


def plain(
    status: int, body: bytes, media_type: str = "text/plain; charset=utf-8", **headers: str
) -> Answer:
    """An answer that is not part of a blob."""
    return Answer(status).with_headers(Content_Type=media_type, **headers).with_body(Piece(body))


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    """An error as the distribution specification words it."""
    body: Json = {"errors": [{"code": code, "message": message}]}
    return plain(status, dumps(body), "application/json", **headers)


def parse_ranges(header: str | None, size: int) -> list[Span] | None:
    """The spans of a Range header, cut to the blob, in its order; None without a valid header."""
    found = _RANGES.fullmatch(header or "")
    if not found:
        return None
    spans: list[Span] = []
    for text in found[1].split(","):
        first, _, last = text.strip().partition("-")
        if first and last and int(last) < int(first):
            return None
        start = int(first) if first else max(0, size - int(last or 0))
        end = min(size, int(last) + 1) if first and last else size
        if start < end:
            spans.append((start, end))
    return spans


def whole(blob: bytes, *, media_type: str = "application/octet-stream") -> Answer:
    answer = Answer(200, blob=blob).with_headers(Content_Type=media_type, Accept_Ranges="bytes")
    return answer.with_body(Piece(memoryview(blob), 0))


def partial(blob: bytes, span: Span) -> Answer:
    start, end = span
    answer = Answer(206, blob=blob).with_headers(
        Content_Type="application/octet-stream",
        Accept_Ranges="bytes",
        Content_Range=content_range(span, len(blob)),
    )
    return answer.with_body(Piece(memoryview(blob)[start:end], start))


def content_range(span: Span, size: int | None) -> str:
    return f"bytes {span[0]}-{span[1] - 1}/{'*' if size is None else size}"


def multipart(blob: bytes, spans: Iterable[Span], boundary: str) -> Answer:
    """One part per span, in this order."""
    pieces: list[Piece] = []
    between = f"--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: "
    for start, end in spans:
        pieces.append(Piece(f"{between}{content_range((start, end), len(blob))}\r\n\r\n".encode()))
        pieces += [Piece(memoryview(blob)[start:end], start), Piece(b"\r\n")]
    pieces.append(Piece(f"--{boundary}--\r\n".encode()))
    answer = Answer(206, blob=blob).with_headers(
        Content_Type=f"multipart/byteranges; boundary={boundary}", Accept_Ranges="bytes"
    )
    return answer.with_body(*pieces)


def ranged(
    blob: bytes,
    asked: str | None,
    *,
    multi: MultiRange,
    single: SingleRange,
    cached: bool,
    boundary: str,
) -> Answer:
    """The answer of a server with these habits. `cached` matters to `200-then-206` alone."""
    spans = parse_ranges(asked, len(blob))
    if spans is None:
        return whole(blob)
    if not spans:
        return plain(416, b"no such range", Content_Range=f"bytes */{len(blob)}")
    if len(spans) > 1:
        return _several(blob, spans, multi, boundary)
    match single:
        case "206":
            return partial(blob, spans[0])
        case "200-then-206":
            return partial(blob, spans[0]) if cached else whole(blob)
        case "200-with-content-range":
            return replace(partial(blob, spans[0]), status=200)
        case _:
            return _refused(single, blob)


def _several(blob: bytes, spans: list[Span], multi: MultiRange, boundary: str) -> Answer:
    match multi:
        case "206":
            return multipart(blob, spans, boundary)
        case "reordered":
            return multipart(blob, reversed(spans), boundary)
        case "coalesced":
            merged = _merged(spans)
            return (
                multipart(blob, merged, boundary) if len(merged) > 1 else partial(blob, merged[0])
            )
        case "single-only-first":
            return partial(blob, spans[0])
        case _:
            return _refused(multi, blob)


def _refused(status: str, blob: bytes) -> Answer:
    return whole(blob) if status == "200" else plain(int(status), b"Unsupported client range")


def _merged(spans: Sequence[Span]) -> list[Span]:
    """As RFC 9110 allows: spans less than a part header (80 bytes) apart become one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start - found[-1][1] < 80:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
