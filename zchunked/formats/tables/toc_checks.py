"""Check a whole TOC, over columns as `Toc` has them: names, sizes, overlapping chunks and holes."""

from __future__ import annotations

import hashlib
import posixpath
import re
from array import array
from collections.abc import Iterable, Sequence
from itertools import compress, pairwise
from operator import eq, le

from zchunked.errors import FormatError, UnsupportedLayerError
from zchunked.oci.digest import EMPTY, raw

_DOTS = re.compile(r"/\.\.?/")
_EMPTY_RAW = raw(EMPTY)
_ZEROS = bytes(1 << 20)
_NAMES = 10_000  # looked at together


def check_names(given: Iterable[str], most_bytes: int) -> None:
    """Raise UnsupportedLayerError for a name with NUL or too long, and for two of the same path."""
    names = [name.removesuffix("/") for name in given]  # directories have one
    for at in range(0, len(names), _NAMES):  # a search for each name would cost more than all else
        text = "/".join(["", *names[at : at + _NAMES], ""])
        if "\0" in text:
            raise UnsupportedLayerError("a name in its table of contents contains NUL")
        if "//" in text or _DOTS.search(text):
            some = names[at : at + _NAMES]
            names[at : at + _NAMES] = [
                posixpath.normpath("/" + name.lstrip("/"))[1:] for name in some
            ]
    longest = max(map(len, names), default=0)
    if longest * 4 > most_bytes and any(len(name.encode()) > most_bytes for name in names):
        raise UnsupportedLayerError(
            f"a name in its table of contents is longer than {most_bytes} bytes"
        )
    if len(set(names)) != len(names):
        raise UnsupportedLayerError("its table of contents has a name twice")


def check_sizes(digests: Sequence[bytes], chunk_sizes: array[int]) -> None:
    """Raise FormatError where one digest has two sizes, or that of nothing has one."""
    sizes = dict(zip(digests, chunk_sizes, strict=True))
    if not all(map(eq, map(sizes.__getitem__, digests), chunk_sizes)):
        raise FormatError("the TOC gives one digest two sizes")
    if sizes.get(_EMPTY_RAW):
        raise FormatError("the TOC gives the digest of nothing a size")


def check_overlaps(starts: array[int], ends: array[int], digests: Sequence[bytes]) -> None:
    """Raise FormatError for chunks that overlap in the blob, unless they are the same chunk."""
    if all(map(le, ends[:-1], starts[1:])):
        return
    rows = sorted(zip(starts, ends, digests, strict=True))
    for before, after in pairwise(rows):
        if before[1] > after[0] and before != after:
            raise FormatError(
                f"chunks at {before[0]}-{before[1]} and {after[0]}-{after[1]} of the blob overlap"
            )


def payload_bytes(starts: array[int], ends: array[int]) -> int:
    """Compressed bytes that chunks lie in, each once."""
    if all(map(le, ends[:-1], starts[1:])):
        return sum(ends) - sum(starts)
    return sum(end - start for start, end in {*zip(starts, ends, strict=True)})


def mark_holes(holes: bytearray, chunk_sizes: array[int], digests: Sequence[bytes]) -> None:
    """Check the digests of holes, and mark all chunks that have one, as files of zeros."""
    wanted = _zeros_digests(compress(chunk_sizes, holes))
    zeros: set[bytes] = set()
    for digest, size in zip(compress(digests, holes), compress(chunk_sizes, holes), strict=True):
        if digest != wanted[size]:
            raise FormatError("a hole in the TOC has a digest that is not of zeros")
        zeros.add(digest)
    for chunk, digest in enumerate(digests):
        if digest in zeros:
            holes[chunk] = 1


def _zeros_digests(sizes: Iterable[int]) -> dict[int, bytes]:
    """By size, in bytes. One pass over the longest of them."""
    hasher, done, found = hashlib.sha256(), 0, {}
    for size in sorted({*sizes}):
        while done < size:
            step = min(size - done, len(_ZEROS))
            hasher.update(_ZEROS[:step])
            done += step
        found[size] = hasher.copy().digest()
    return found
