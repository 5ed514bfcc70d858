"""Take a blob of a known digest from a stream into the store, resumed where it ended."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO

from zchunked.errors import IntegrityError, LimitError
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.digest import Digest, from_raw
from zchunked.pull.processes.claims import Claims
from zchunked.ranges import ByteRange
from zchunked.store import Store

_BLOCK = 1 << 20


def ingest(store: Store, digest: Digest, size: int | None, source: BinaryIO) -> int:
    """Store a blob from its first byte on; returns its size. A second run writes what is missing.

    Without a size that is a pipe's to tell, and what was cut short is not kept. Where another
    process brings the blob, that is waited for, and gone on with if it dies. Raises IntegrityError
    for other bytes than promised, of which nothing is kept; LimitError, LocalError.
    """
    claims = Claims(store, threading.Event())
    try:
        for _ in claims.acquire(digest, [digest], lambda: None):
            pass  # a note for people, who are not told here
        return _ingest(store, digest, size, source)
    finally:
        claims.release()


def _ingest(store: Store, digest: Digest, size: int | None, source: BinaryIO) -> int:
    if (known := store.whole_size(digest)) is not None:
        return known
    size = _size_of(source) if size is None else size
    if size is None:
        return _spooled(store, digest, source)
    if size > DEFAULT_LIMITS.layer_bytes:
        raise LimitError(f"{digest} has {size} bytes, the limit is {DEFAULT_LIMITS.layer_bytes}")
    number = store.pulls.begin(f"ingest:{digest}", "", digest, 0)
    _write(store, digest, size, source)
    hasher = hashlib.sha256()
    for piece in store.stream(digest, ByteRange(0, size)) if size else ():
        hasher.update(piece)
    if from_raw(hasher.digest()) != digest:
        store.evict(digest, [ByteRange(0, size)])
        store.pulls.finish(number, f"ingest:{digest}", "")
        raise IntegrityError(
            f"expected {digest}, got {from_raw(hasher.digest())} ({size} bytes); "
            "nothing of it is kept"
        )
    store.set_whole(digest, size)
    return size


def _write(store: Store, digest: Digest, size: int, source: BinaryIO) -> None:
    writer, at, read = store.writer(digest, size), 0, _reader(source)
    try:
        while at < size:
            piece = read(min(_BLOCK, size - at))
            if not piece:
                raise IntegrityError(
                    f"{digest} ends after {at} of {size} bytes; send it again, these are kept"
                )
            for gap in store.missing(digest, [ByteRange(at, at + len(piece))]):
                writer.write(gap.start, piece[gap.start - at : gap.end - at])
            at += len(piece)
    finally:
        writer.close()
    if read(1):
        store.evict(digest, [ByteRange(0, size)])
        raise IntegrityError(
            f"{digest} has more than the {size} bytes that were announced; nothing of it is kept"
        )


def _reader(source: BinaryIO) -> Callable[[int], bytes]:
    """What gives the bytes that have come, where there is one: a kill loses those not written."""
    found: Callable[[int], bytes] = getattr(source, "read1", source.read)
    return found


def _size_of(source: BinaryIO) -> int | None:
    """The size of a file; None of a pipe."""
    with suppress(OSError, io.UnsupportedOperation):
        here = source.tell()
        end = source.seek(0, io.SEEK_END)
        source.seek(here)
        return end - here
    return None


def _spooled(store: Store, digest: Digest, source: BinaryIO) -> int:
    hasher, read = hashlib.sha256(), _reader(source)

    def pieces() -> Iterator[bytes]:
        while piece := read(_BLOCK):
            hasher.update(piece)
            yield piece
        if from_raw(hasher.digest()) != digest:
            raise IntegrityError(
                f"expected {digest}, got {from_raw(hasher.digest())}; nothing of it is kept"
            )

    return store.keep(pieces())[1]
