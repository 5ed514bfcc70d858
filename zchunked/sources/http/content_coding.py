"""Undo Content-Encoding as servers use it: a mere label, or real compression. Pure.

We ask for `identity`. Some servers label what they send all the same (`aws-chunked`, `x-gzip` for a
layer that is a gzip file), so the label alone refuses nothing: lengths and digests tell. Others do
pack small documents; those are unpacked.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from zchunked.errors import LimitError
from zchunked.oci.digest import Digest, digest_of

_REAL = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"})
_GZIP_OR_ZLIB = 47  # wbits of zlib: either, by its header


def may_be_packed(headers: Mapping[str, str]) -> bool:
    """Whether the coding named is one that changes bytes."""
    named = headers.get("Content-Encoding", "").lower().split(",")
    return any(one.strip() in _REAL for one in named)


def document_of(headers: Mapping[str, str], data: bytes, most: int, what: str) -> bytes:
    """A JSON document, decompressed. LimitError when it has more than `most` bytes."""
    if not may_be_packed(headers) or data.lstrip()[:1] in (b"{", b"[", b""):
        return data
    return _unpacked(data, most, what)


def blob_of(headers: Mapping[str, str], data: bytes, digest: Digest, most: int, what: str) -> bytes:
    """The body, or what it decompresses to: the digest decides. The body where neither fits."""
    if not may_be_packed(headers) or digest_of(data) == digest:
        return data
    unpacked = _unpacked(data, most, what)
    return unpacked if digest_of(unpacked) == digest else data


def _unpacked(data: bytes, most: int, what: str) -> bytes:
    """The data itself when it is neither gzip nor zlib."""
    machine = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = machine.decompress(data, most + 1)
    except zlib.error:
        return data
    if len(found) > most:
        raise LimitError(f"{what} unpacks to more than {most} bytes, the limit")
    return found if machine.eof else data
