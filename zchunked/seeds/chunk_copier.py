"""Copy wanted chunks from a file into the store, each proved by its digest while it is copied."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial

from zchunked.errors import FormatError
from zchunked.formats.frames import zstd as frames
from zchunked.ranges import ByteRange
from zchunked.seeds.pack import Packer, Read
from zchunked.seeds.scan import read_at
from zchunked.seeds.wanted import Wanted
from zchunked.store import Store

LONG = 8 << 20  # what is longer is never held at once
PIECE = 1 << 20


class ChunkCopier:
    """Used by all workers of an import. Thread-safe."""

    def __init__(self, store: Store, wanted: Wanted, check: Callable[[], None]) -> None:
        """`check` is called between pieces, and raises when the pull has ended."""
        self._packer, self._wanted, self._check = Packer(store), wanted, check
        self._lock = threading.Lock()
        self.count = 0
        """Chunks that were copied."""

    def close(self) -> None:
        """What was not closed is lost, and found again next time."""
        self._packer.close()

    def copy(self, read: Read, size: int, name: str, known: bytes | None = None) -> bytes | None:
        """Copy what is wanted of one file; `known` is what it hashed to once.

        Returns what it hashes to, where that was of use.
        """
        digest = known
        if self._wanted.has_file(size) and (known is None or self._wanted.lacks(known, size)):
            data = read(0, size) if size <= LONG else None
            digest = hashlib.sha256(data).digest() if data is not None else self._hash(read, size)
            self._keep(digest, size, read, 0, data)
        for one in self._wanted.slices(size, name):
            self._check()
            data = read(one.at, one.size) if one.size <= LONG else None
            if data is None or hashlib.sha256(data).digest() == one.digest:
                self._keep(one.digest, one.size, read, one.at, data)
        return digest

    def copy_frame(self, handle: int, digest: bytes, size: int, span: ByteRange) -> None:
        """Copy the chunk of the frame at `span` of an open layer; a damaged one is left out."""
        try:
            if max(size, span.size) > LONG:
                packed = partial(contents, handle, span.start, span.size)
                stream = partial(_decoded, packed, size)
                if self._packer.add_long(digest, size, stream):
                    self._took(digest, size)
                return
            frame = read_at(handle, span.start, span.size)
            is_right = hashlib.sha256(frames.decode(frame, size)).digest() == digest
            if is_right and self._took(digest, size):
                self._packer.add(digest, size, frame)
        except FormatError:
            pass

    def _hash(self, read: Read, size: int) -> bytes:
        hasher = hashlib.sha256()
        for piece in self._pieces(read, 0, size):
            hasher.update(piece)
        return hasher.digest()

    def _pieces(self, read: Read, start: int, size: int) -> Iterator[bytes]:
        for at in range(start, start + size, PIECE):
            self._check()
            yield read(at, min(PIECE, start + size - at))

    def _keep(self, digest: bytes, size: int, read: Read, at: int, data: bytes | None) -> None:
        """Keep a chunk of this digest; a long one is read anew, and proved, while it is copied."""
        if not self._wanted.lacks(digest, size) or (data is not None and len(data) != size):
            return
        if data is None:
            if self._packer.add_long(digest, size, lambda: self._pieces(read, at, size)):
                self._took(digest, size)
        elif self._took(digest, size):
            self._packer.add(digest, size, frames.encode(data))

    def _took(self, digest: bytes, size: int) -> bool:
        if not self._wanted.take(digest, size):
            return False
        with self._lock:
            self.count += 1
        return True


def contents(handle: int, at: int, length: int | None) -> Iterator[bytes]:
    """An open file's bytes from `at`: to its end, or so many."""
    end = at + length if length is not None else 1 << 62
    while piece := read_at(handle, at, min(PIECE, end - at)):
        yield piece
        at += len(piece)


def reader(handle: int, base: int) -> Read:
    """Reads an open file, by offsets from `base`."""
    return lambda at, size: read_at(handle, base + at, size)


def _decoded(packed: Callable[[], Iterator[bytes]], size: int) -> Iterator[bytes]:
    return frames.stream(packed(), most=size)
