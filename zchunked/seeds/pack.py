"""Store chunks found in seeds: as frames in blobs of some MiB, each named by its digest."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator

from zchunked.formats.frames import zstd as frames
from zchunked.oci.digest import from_raw
from zchunked.ranges import ByteRange
from zchunked.store import Store

_BLOB_BYTES = 8 << 20

Read = Callable[[int, int], bytes]
"""(at, size) → those bytes of a file, or fewer where it ends."""
Rows = list[tuple[bytes, int, int, int]]


class Packer:
    """Takes proved chunks from any worker. Unclosed ones are lost, and found again later."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._frames: list[bytes] = []
        self._rows: Rows = []
        self._size = 0

    def add(self, digest: bytes, size: int, frame: bytes) -> None:
        """`frame` decodes to `size` bytes of this raw digest: the caller has seen to that."""
        with self._lock:
            self._rows.append((digest, self._size, len(frame), size))
            self._frames.append(frame)
            self._size += len(frame)
            full = self._cut() if self._size >= _BLOB_BYTES else None
        if full:
            self._put(*full)

    def close(self) -> None:
        with self._lock:
            rest = self._cut()
        if rest[1]:
            self._put(*rest)

    def _cut(self) -> tuple[list[bytes], Rows]:
        cut = self._frames, self._rows
        self._frames, self._rows, self._size = [], [], 0
        return cut

    def _put(self, some: list[bytes], rows: Rows) -> None:
        data = b"".join(some)
        self._store.add_chunks(self._store.put(data), len(data), rows)

    def add_long(self, digest: bytes, size: int, pieces: Callable[[], Iterator[bytes]]) -> bool:
        """Store a chunk too long for memory as its own blob.

        False if the pieces do not match the digest. `pieces` is read twice, for a blob's name must
        be known before its first byte is written.
        """
        raw, packed, length = hashlib.sha256(), hashlib.sha256(), 0
        for piece in frames.encoded(_hashed(pieces(), raw), size):
            packed.update(piece)
            length += len(piece)
        if raw.digest() != digest:
            return False
        blob, again = from_raw(packed.digest()), hashlib.sha256()
        if not self._store.is_whole(blob):
            writer = self._store.writer(blob, length)
            try:
                at = 0
                for piece in frames.encoded(pieces(), size):
                    again.update(piece)
                    at += len(piece)
                    if at > length:
                        break
                    writer.write(at - len(piece), piece)
            finally:
                writer.close()
            if again.digest() != packed.digest():  # it changed between the two
                self._store.evict(blob, [ByteRange(0, length)])
                return False
            self._store.set_whole(blob, length)
        self._store.add_chunks(blob, length, [(digest, 0, length, size)])
        return True


def _hashed(pieces: Iterator[bytes], hasher: hashlib._Hash) -> Iterator[bytes]:
    for piece in pieces:
        hasher.update(piece)
        yield piece
