"""Find payload frames whose content differs from the TOC: damaged in transit or on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import pairwise

from zchunked.errors import FormatError
from zchunked.formats.frames import zstd
from zchunked.formats.frames.decompress import unpacked
from zchunked.formats.frames.frame_map import PAYLOAD, FrameMap
from zchunked.formats.tables.toc import Toc
from zchunked.limits import DEFAULT_LIMITS, Limits

_AT_ONCE = 1 << 20  # decoded bytes of a frame that is decoded whole, and of one batch of these


def damaged(
    toc: Toc,
    frames: FrameMap,
    numbers: Sequence[int],
    data: Sequence[bytes | memoryview],
    limits: Limits = DEFAULT_LIMITS,
) -> list[int]:
    """The payload frames of `numbers` whose compressed bytes, in `data`, hold other content.

    `numbers` ascend; ValueError for a frame of another kind, since no digest speaks for it. Content
    is decoded a mebibyte at a time at most, whatever a frame claims.
    """
    if any(frames.kinds[number] != PAYLOAD for number in numbers):
        raise ValueError("only payload frames have a digest")
    if frames.is_joined:
        chunks = [*(chunk for chunk in frames.chunks if chunk >= 0), len(toc.starts)]
        after = dict(pairwise(chunks))
        return [
            number
            for number, one in zip(numbers, data, strict=True)
            if not _is_sound(
                toc, range(frames.chunks[number], after[frames.chunks[number]]), one, limits
            )
        ]
    found: list[int] = []
    for some, those in _batches(frames, numbers, data):
        sizes = [frames.sizes[number] for number in some]
        contents = zstd.decode_many(those, sizes, limits) if sizes[0] <= _AT_ONCE else [None]
        for number, one, content in zip(some, those, contents, strict=True):
            chunk = frames.chunks[number]
            if content is None:  # too long to be decoded whole, or broken
                is_sound = _is_sound(toc, range(chunk, chunk + 1), one, limits)
            else:
                is_sound = sha256(content).digest() == toc.digests[chunk]
            if not is_sound:
                found.append(number)
    return found


def _batches(
    frames: FrameMap, numbers: Sequence[int], data: Sequence[bytes | memoryview]
) -> Iterator[tuple[list[int], list[bytes | memoryview]]]:
    """Frames of a mebibyte together, or one that is longer."""
    some: list[int] = []
    those: list[bytes | memoryview] = []
    left = _AT_ONCE
    for number, one in zip(numbers, data, strict=True):
        left -= frames.sizes[number]
        if some and left < 0:
            yield some, those
            some, those, left = [], [], _AT_ONCE - frames.sizes[number]
        some.append(number)
        those.append(one)
    if some:
        yield some, those


def _is_sound(toc: Toc, chunks: range, data: bytes | memoryview, limits: Limits) -> bool:
    """Whether the frame decodes, to its end, and the chunks lie in it where the TOC has them."""
    inner, at = toc.inner_offsets, 0
    starts = [inner[chunk] if inner is not None else 0 for chunk in chunks]
    ends = [start + toc.chunk_sizes[chunk] for start, chunk in zip(starts, chunks, strict=True)]
    hashers = [sha256() for _ in chunks]
    first = 0  # of the chunks that have not come whole
    try:
        for piece in unpacked([bytes(data)], limits):
            for one in range(first, len(hashers)):
                if starts[one] >= at + len(piece):
                    break
                hashers[one].update(memoryview(piece)[max(starts[one] - at, 0) : ends[one] - at])
            at += len(piece)
            while first < len(ends) and ends[first] <= at:
                first += 1
            if inner is None and at > ends[-1]:
                return False
    except FormatError:
        return False
    if first < len(ends) or (inner is None and at != ends[-1]):
        return False
    return all(
        hasher.digest() == toc.digests[chunk] for hasher, chunk in zip(hashers, chunks, strict=True)
    )
