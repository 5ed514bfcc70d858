"""Check a response against the requested ranges: status and headers. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from zchunked.errors import (
    FormatError,
    IntegrityError,
    MultiRangeRefusedError,
    PermanentError,
    RangeIgnoredError,
    TransferError,
    TransientError,
)
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import short
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, parse_content_range
from zchunked.sources.http.content_coding import may_be_packed

_REFUSED_SEVERAL = frozenset({400, 413, 414, 416, 431, 501, 502})
_ODD_TRIES = 3  # answers to one range that are no use: a host may do so once in a while
_SIZE_TRIES = 3  # answers that speak of another size: one may be a slip of something on the way
REFUSED_SINGLE = frozenset({400, 416, 501})
_MULTIPART = re.compile(r"multipart/byteranges[ \t]*(?:;|$)", re.IGNORECASE)
_BOUNDARY = re.compile(
    r";[ \t]*boundary[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"]+))", re.IGNORECASE
)


class EncodedError(PermanentError):
    """The body is packed, so no position in it means anything."""


class Packed(Struct, frozen=True):
    """The body is a small blob, which the server may have packed whole."""


class Parts(Struct, frozen=True):
    """The body is multipart/byteranges with this boundary."""

    boundary: bytes


def understand(
    status: int,
    headers: Mapping[str, str],
    blob: Descriptor,
    spans: Sequence[ByteRange],
    limits: Limits = DEFAULT_LIMITS,
) -> ByteRange | Parts | Packed | None:
    """What the body holds: one range of the blob, or parts. None: no status about ranges.

    Raises RangeIgnoredError, MultiRangeRefusedError (several spans only), TransientError for an
    answer that contradicts the question, IntegrityError when the blob is shorter than promised.
    """
    is_whole = len(spans) == 1 and spans[0].size == blob.size
    what = f"blob {short(blob.digest)}"
    if status in (200, 206) and may_be_packed(headers):
        is_small = status == 200 and blob.size <= limits.manifest_bytes
        if not is_small:
            _refuse_packed(headers, blob, what)
        elif len(spans) == 1 and headers.get("Content-Length") != str(blob.size):
            return _packed(what, is_whole=is_whole)
    if status == 200:
        return _of_200(headers, blob, spans, what) if not is_whole else spans[0]
    if status == 206:
        return _of_206(headers, blob, spans, what, limits)
    if len(spans) > 1 and status in _REFUSED_SEVERAL:
        raise MultiRangeRefusedError(
            f"{what}: {len(spans)} ranges in one request are answered with status {status}"
        )
    if status == 416 and not is_whole:
        said = re.fullmatch(r"bytes[ ]*\*/(\d{1,19})", headers.get("Content-Range", ""), re.ASCII)
        if said and int(said[1]) != blob.size:
            raise _another_size(what, int(said[1]), blob.size)
    if not is_whole and status in REFUSED_SINGLE:
        raise RangeIgnoredError(f"{what}: a range is answered with status {status}")
    return None


def _packed(what: str, *, is_whole: bool) -> Packed:
    if not is_whole:  # then it is asked for as a whole, and unpacked
        raise RangeIgnoredError(f"{what}: a range is answered with all of it, perhaps packed")
    return Packed()


def _refuse_packed(headers: Mapping[str, str], blob: Descriptor, what: str) -> None:
    """Raise EncodedError where the stated lengths show that the body is compressed."""
    want, total = blob.size, None
    if content_range := headers.get("Content-Range"):
        try:
            span, total = parse_content_range(content_range)
            want = span.size
        except FormatError:
            return
    elif _MULTIPART.match(headers.get("Content-Type", "")):
        return
    length = headers.get("Content-Length", str(want))
    if length != str(want) or total not in (None, blob.size):
        raise EncodedError(
            f"{what} came with Content-Encoding {headers.get('Content-Encoding')!r:.40}, packed to "
            f"{length!r:.24} bytes, expected {want} as they are"
        )


def stated_size(status: int, headers: Mapping[str, str]) -> int | None:
    """What the answer to `bytes=0-0` says of the whole; None when it does not."""
    said = headers.get("Content-Range", "")
    if status == 206:
        try:
            return parse_content_range(said)[1]
        except FormatError:
            return None
    if status == 416:  # an empty blob has no first byte
        return 0 if re.fullmatch(r"bytes[ ]*\*/0", said.strip()) else None
    length = headers.get("Content-Length", "")
    is_plain = not may_be_packed(headers) and re.fullmatch(r"[0-9]{1,19}", length)
    return int(length) if status == 200 and is_plain else None


def _of_200(
    headers: Mapping[str, str], blob: Descriptor, spans: Sequence[ByteRange], what: str
) -> ByteRange:
    """Judge a 200: some servers send a range under it, if headers say so; others the blob."""
    if len(spans) > 1:
        raise MultiRangeRefusedError(
            f"{what}: {len(spans)} ranges in one request are answered with the whole blob"
        )
    try:
        span, total = parse_content_range(headers.get("Content-Range", ""))
    except FormatError:
        span, total = None, None
    if (
        span == spans[0]
        and total in (None, blob.size)
        and headers.get("Content-Length") == str(span.size)
    ):
        return span
    if (
        headers.get("Content-Length", str(blob.size)) != str(blob.size)
        or "Content-Range" in headers
    ):
        raise RangeIgnoredError(f"{what}: a range is answered with something else under status 200")
    return ByteRange(0, blob.size)


def _of_206(
    headers: Mapping[str, str],
    blob: Descriptor,
    spans: Sequence[ByteRange],
    what: str,
    limits: Limits,
) -> ByteRange | Parts:
    content_type = headers.get("Content-Type", "")
    if _MULTIPART.match(content_type) and "Content-Range" not in headers:
        boundary = _boundary(content_type, limits)
        if boundary is None:
            message = f"{what}: multipart without a usable boundary: {content_type!r:.120}"
            raise _odd(message, spans, blob)
        return Parts(boundary)
    asked = (
        f"asked for {spans[0]}"
        if len(spans) == 1
        else f"asked for {len(spans)} ranges from {spans[0]} to {spans[-1]}"
    )
    try:
        span, total = parse_content_range(headers.get("Content-Range", ""))
    except FormatError as error:
        raise _odd(f"{what}: {asked}, answered with 206, but {error}", spans, blob) from error
    if total not in (None, blob.size):
        message = f"{what}: {asked} of {blob.size} bytes, answered with {span} of {total}"
        lasting = _another_size(what, total, blob.size)
        raise TransientError(message, most_tries=_SIZE_TRIES, if_lasting=lasting)
    if len(spans) == 1:
        # a server may send the beginning alone
        is_ours = span.start == spans[0].start and span.end <= spans[0].end
    else:
        is_ours = (
            spans[0].start <= span.start and span.end <= spans[-1].end and any(clip(span, spans))
        )
    if not is_ours:
        raise _odd(f"{what}: {asked}, answered with {span}", spans, blob)
    return span


def _odd(message: str, spans: Sequence[ByteRange], blob: Descriptor) -> TransferError:
    """Of a 206 without use: to several ranges, the host takes one; to one, if that lasts, none."""
    if len(spans) > 1:
        return MultiRangeRefusedError(message)
    is_whole = spans[0].size == blob.size
    lasting = None if is_whole else RangeIgnoredError(message)
    return TransientError(message, most_tries=None if is_whole else _ODD_TRIES, if_lasting=lasting)


def _another_size(what: str, got: int, want: int) -> IntegrityError:
    return IntegrityError(
        f"{what}: the server has {got} bytes of it, its descriptor promises {want}; "
        "the manifest or the registry's copy is wrong: push the image again"
    )


def _boundary(content_type: str, limits: Limits) -> bytes | None:
    found = _BOUNDARY.search(content_type)
    text = (
        ""
        if found is None
        else re.sub(r"\\(.)", r"\1", found[1])
        if found[1] is not None
        else found[2]
    )
    is_usable = 0 < len(text) <= limits.boundary_chars and text.isascii() and text.isprintable()
    return text.encode() if is_usable else None


def clip(got: ByteRange, spans: Sequence[ByteRange]) -> Iterator[ByteRange]:
    """The parts of `got` that lie in `spans`, which are ascending and disjoint."""
    for index in range(bisect_right(spans, got.start, key=_end), len(spans)):
        span = spans[index]
        if span.start >= got.end:
            break
        yield ByteRange(max(span.start, got.start), min(span.end, got.end))


def _end(span: ByteRange) -> int:
    return span.end
