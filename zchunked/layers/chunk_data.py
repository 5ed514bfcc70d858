"""Decode stored chunks, and check them against their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from zchunked.errors import FormatError, IntegrityError
from zchunked.formats.frames import zstd as frames
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.chunks import ChunkLocation

BLOCK = 256 << 10  # hashing releases the interpreter for pieces of some size only
PORTION = 512 << 10  # contents that are decoded before they are emitted
_AT_ONCE = 1 << 20  # chunks above this are decoded as a stream

Check = tuple[int, int, int, bytes]
"""A chunk to check in its blob: start, end, decoded size, raw digest."""
_Item = TypeVar("_Item")


def chunk_data(
    store: Store, place: ChunkLocation, size: int, limits: Limits = DEFAULT_LIMITS
) -> Iterable[bytes]:
    """The decoded bytes of a chunk, `size` of them or IntegrityError; its digest is not checked."""
    end = place.start + place.length
    if size <= _AT_ONCE and place.length <= _AT_ONCE:
        try:
            return (frames.decode(store.read(place.blob, place.start, end), size, limits),)
        except FormatError as error:
            raise IntegrityError(
                f"chunk at [{place.start},{end}) of {place.blob}: {error}"
            ) from error
    return _long_chunk(store, place, size, limits)


def _long_chunk(store: Store, place: ChunkLocation, size: int, limits: Limits) -> Iterator[bytes]:
    span = ByteRange(place.start, place.start + place.length)
    try:
        yield from exactly(frames.stream(store.stream(place.blob, span), limits, size), size)
    except FormatError as error:
        raise IntegrityError(f"chunk at {span} of {place.blob}: {error}") from error


def are_chunks(
    store: Store, blob: Digest, chunks: Sequence[Check], limits: Limits = DEFAULT_LIMITS
) -> list[bool]:
    """Whether each (start, end, decoded size, raw digest) of a blob, ascending, is right."""
    verdicts: list[bool] = []
    for some in _by_size(chunks, [max(end - start, size) for start, end, size, _ in chunks]):
        try:
            pieces = store.read_many(blob, some) if len(some) > 1 else None
        except IntegrityError:  # a damaged file: some of them may be good all the same
            pieces = None
        if pieces is None:
            for start, end, size, digest in some:
                verdicts.append(
                    is_chunk(store, ChunkLocation(blob, start, end - start), size, digest, limits)
                )
            continue
        decoded = frames.decode_many(pieces, [size for _, _, size, _ in some], limits)
        verdicts += [
            data is not None and hashlib.sha256(data).digest() == digest
            for data, (_, _, _, digest) in zip(decoded, some, strict=True)
        ]
    return verdicts


def _by_size(items: Sequence[_Item], sizes: Sequence[int]) -> Iterator[Sequence[_Item]]:
    """Neighbours that together fit into memory, as far as that can be."""
    first = held = 0
    for at, size in enumerate(sizes):
        if held + size > PORTION and at > first:
            yield items[first:at]
            first, held = at, 0
        held += size
    if items:
        yield items[first:]


def is_chunk(
    store: Store, place: ChunkLocation, size: int, digest: bytes, limits: Limits = DEFAULT_LIMITS
) -> bool:
    """Whether the bytes at `place` are what the raw digest promises."""
    hasher = hashlib.sha256()
    try:
        for data in chunk_data(store, place, size, limits):
            hasher.update(data)
    except IntegrityError:
        return False
    return hasher.digest() == digest


def exactly(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    left = size
    for piece in pieces:
        left -= len(piece)
        yield piece
    if left:
        raise FormatError(f"frames decode to {size - left} bytes instead of {size}")


def strides(pieces: Iterable[bytes], size: int = BLOCK) -> Iterator[bytes]:
    """Yield the bytes in pieces that are worth hashing, or handing to another thread."""
    held: list[bytes] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    yield b"".join(held)
