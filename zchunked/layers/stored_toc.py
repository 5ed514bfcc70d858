"""StoredToc: the frames of a stored blob by its table of contents, packed; their index rows."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, count, islice, repeat
from operator import and_, gt, itemgetter
from struct import iter_unpack
from typing import Self

from zchunked.formats.frames.frame_map import NO_KEY, PAYLOAD, FrameMap
from zchunked.oci.digest import RAW_SIZE, Digest
from zchunked.store.index.frame_index import FINGERPRINT_BYTES, FrameRows

_AT_ONCE = 1 << 17  # frames
_NO_KEY = bytes(RAW_SIZE)


@dataclass(frozen=True, slots=True)
class StoredToc:
    """The frames of a stored blob by its TOC, without rows in the index: columns as in `FrameMap`.

    `keys`: all of them, 32 bytes each, zeros for none: of 600,000 frames 19 MB, as values of their
    own 53.
    """

    blob: Digest
    edges: array[int]
    kinds: bytearray
    keys: bytes
    sizes: array[int]
    is_joined: bool

    @classmethod
    def of(cls, blob: Digest, frames: FrameMap) -> Self:
        keys = b"".join([key or _NO_KEY for key in frames.keys])
        return cls(blob, frames.edges, frames.kinds, keys, frames.sizes, frames.is_joined)

    def __len__(self) -> int:
        return len(self.kinds)

    def part(self, first: int, end: int) -> FrameMap:
        """Some of its frames."""
        count = len(self.kinds[first:end])
        keys = [NO_KEY if key == _NO_KEY else key for key in self._keys(first, end)]
        return FrameMap(
            self.edges[first : end + 1],
            self.kinds[first:end],
            keys,
            array("q", (-1,)) * count,
            self.sizes[first:end],
            self.is_joined,
        )

    def known_of(self, keys: set[bytes]) -> set[bytes]:
        """Which of the keys it has."""
        return keys.intersection(self._keys(0, len(self)))

    def numbers_of(self, keys: Sequence[bytes]) -> array[int]:
        """For each key, which frame has it; -1 for none."""
        found: Iterable[int] = repeat(-1)
        for first in range(0, len(self), _AT_ONCE):  # a dictionary of all had 80 MB
            numbers = dict(zip(self._keys(first, first + _AT_ONCE), count(first), strict=False))
            numbers.pop(_NO_KEY, None)
            found = list(map(numbers.get, keys, found))
        return array("q", islice(found, len(keys)))

    def _keys(self, first: int, end: int) -> Iterator[bytes]:
        packed = memoryview(self.keys)[first * RAW_SIZE : end * RAW_SIZE]
        return map(itemgetter(0), iter_unpack(f"{RAW_SIZE}s", packed))


def frame_rows(frames: FrameMap) -> tuple[FrameRows, FrameRows]:
    """Index rows of frames, ascending by key: payloads, and those looked up like headers."""
    keys, lengths = frames.keys, frames.lengths()
    is_new = [key != NO_KEY for key in keys]
    is_payload = [kind == PAYLOAD and not frames.is_joined for kind in frames.kinds]
    payloads = list(map(and_, is_new, is_payload))
    headers = list(map(gt, is_new, is_payload))
    columns = frames.edges[:-1], lengths, frames.sizes  # the last is 0 of headers
    its_payloads, its_headers = (
        list(zip(*(compress(column, its) for column in columns), strict=True))
        for its in (payloads, headers)
    )
    return (
        _rows(list(compress(keys, payloads)), its_payloads),
        _rows([key[:FINGERPRINT_BYTES] for key in compress(keys, headers)], its_headers),
    )


def _rows(keys: list[bytes], numbers: list[tuple[int, int, int]]) -> FrameRows:
    """Rows of the first frame of each key: the index takes no second."""
    keys.reverse()
    numbers.reverse()
    by_key = dict(zip(keys, numbers, strict=True))
    ordered = sorted(by_key)
    return ordered, list(map(by_key.__getitem__, ordered))
