"""Parse a tar-split: a tar's bytes around its files' contents (vbatts/tar-split, JSON lines)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from zchunked.errors import FormatError
from zchunked.limits import DEFAULT_LIMITS, Limits

FILE, SEGMENT = 1, 2
_BATCH_BYTES = 256 << 10


class Line(msgspec.Struct):
    """`SEGMENT`: payload is bytes of the tar. `FILE`: a header's entry; payload is a CRC.

    The CRC is big-endian.
    """

    type: int
    name: str | None = None
    name_raw: bytes | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0
    payload: bytes | None = None


_LINES = msgspec.json.Decoder(Line)


def parse_lines(pieces: Iterable[bytes], limits: Limits = DEFAULT_LIMITS) -> Iterator[list[Line]]:
    """Batches of lines out of the decoded text, cut anywhere. Raises FormatError."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        cut = piece.rfind(b"\n") + 1
        if not cut or size + cut < _BATCH_BYTES:
            held.append(piece)
            size += len(piece)
            if not cut and size > limits.tarsplit_line_bytes + _BATCH_BYTES:
                raise FormatError(
                    f"a line of the tar-split is longer than {limits.tarsplit_line_bytes} bytes"
                )
            continue
        held.append(piece[:cut])
        yield _decode(b"".join(held), limits)
        held = [piece[cut:]]
        size = len(held[0])
    if (rest := b"".join(held)).strip():
        yield _decode(rest, limits)


def _decode(text: bytes, limits: Limits) -> list[Line]:
    if (
        len(text) > limits.tarsplit_line_bytes
        and max(map(len, text.split(b"\n"))) > limits.tarsplit_line_bytes
    ):
        raise FormatError(
            f"a line of the tar-split is longer than {limits.tarsplit_line_bytes} bytes"
        )
    try:
        return _LINES.decode_lines(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"malformed tar-split: {str(error)[:200]}") from error
