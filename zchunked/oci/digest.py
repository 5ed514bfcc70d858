"""Digests: parse them, and compare bytes with them; the only place that does."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NewType

from zchunked.errors import FormatError, IntegrityError

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hex digits; made by the functions of this module alone."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_HEX_DIGITS = b"0123456789abcdef"
RAW_SIZE = 32
EMPTY = Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def parse_digest(text: str, what: str = "digest") -> Digest:
    """FormatError on other algorithms, upper case, path characters: it may name a file."""
    if not _DIGEST.fullmatch(text):
        raise FormatError(
            f"invalid {what}: {text!r:.100}; expected sha256: and 64 lower-case hex digits"
        )
    return Digest(text)


def parse_digests(texts: list[str], what: str) -> bytes:
    """Many digests at once, as raw bytes, 32 for each text in order."""
    digits = "".join([text[7:] for text in texts])
    heads, lengths = {text[:7] for text in texts}, set(map(len, texts))
    is_hex = digits.isascii() and not digits.encode().translate(None, _HEX_DIGITS)
    if not (heads <= {"sha256:"} and lengths <= {71} and is_hex):
        for text in texts:
            parse_digest(text, what)
    return bytes.fromhex(digits)


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def raw(digest: Digest) -> bytes:
    return bytes.fromhex(digest[7:])


def from_raw(data: bytes | memoryview) -> Digest:
    return Digest("sha256:" + data.hex())


def short(digest: str) -> str:
    """Enough of a digest to find it by, for messages."""
    return digest[7:19]


def verify(data: bytes | bytearray | memoryview, want: Digest, what: str) -> None:
    """Raise IntegrityError unless `data` is what `want` promises."""
    got = digest_of(data)
    if got != want:
        raise IntegrityError(f"{what}: expected {want}, got {got} ({len(data)} bytes)")


def verified(
    pieces: Iterable[bytes | memoryview], want: Digest, size: int, what: str
) -> Iterator[bytes | memoryview]:
    """Pass pieces through; IntegrityError on excess at once, on shortfall or mismatch at the end.

    The consumer sees bytes before the verdict, so it writes to a temporary place until the iterator
    ends.
    """
    hasher, left = hashlib.sha256(), size
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise IntegrityError(f"{what}: longer than the {size} bytes promised")
        hasher.update(piece)
        yield piece
    if left:
        raise IntegrityError(f"{what}: {left} of {size} bytes are missing")
    if (got := "sha256:" + hasher.hexdigest()) != want:
        raise IntegrityError(f"{what}: expected {want}, got {got}")
