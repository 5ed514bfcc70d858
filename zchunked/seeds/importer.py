"""Seeds → chunks in the store: finds what is wanted, proves it while it is copied. Runs on the crew's prove lane."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from zchunked.download.retry import Stopped
from zchunked.download.workers import WorkerPool
from zchunked.errors import FormatError
from zchunked.events import Noted
from zchunked.formats import zstd as frames
from zchunked.formats.decompress import unpacked
from zchunked.interfaces import Emit
from zchunked.layers.metadata import LayerIndex
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.seeds.layouts import is_layout, layers_of, toc_of
from zchunked.seeds.pack import Packer, Read
from zchunked.seeds.scan import (
    BROKEN,
    Forward,
    Found,
    Seekable,
    inode_of,
    is_layer,
    kind_of,
    members,
    opened,
    read_at,
    stamp_of,
    walk,
)
from zchunked.seeds.wanted import Wanted
from zchunked.store import Store

_BATCH = 512  # files that one task looks at
_LONG = 8 << 20  # what is longer is never held at once
_PIECE = 1 << 20


def sow(
    paths: Sequence[Path],
    layers: Iterable[LayerIndex],
    store: Store,
    crew: WorkerPool,
    *,
    stop: threading.Event,
    emit: Emit,
    tick: Callable[[], None],
) -> None:
    """Copy into the store what these places hold of the chunks that it lacks. Returns when all is looked at.

    A place that cannot be read is noted and does no harm. LocalError when our own disk fails.
    """
    wanted = Wanted(layers, store)
    if not wanted:
        return
    sower = _Sower(store, wanted, crew, stop, emit)
    for path in paths:
        crew.submit("prove", lambda path=path: sower.look_into(path))  # type: ignore[misc]
    crew.wait(tick)
    sower.close()
    tick()


class _Sower:
    def __init__(self, store: Store, wanted: Wanted, crew: WorkerPool, stop: threading.Event, emit: Emit) -> None:
        self._store, self._wanted, self._crew, self._stop, self._emit = store, wanted, crew, stop, emit
        self._packer = Packer(store)
        self._lock = threading.Lock()
        self._count = 0

    def close(self) -> None:
        self._packer.close()
        if self._count:
            self._emit(Noted(f"seeds hold {self._count} of {self._wanted.count} wanted chunks"))

    def look_into(self, path: Path) -> None:
        try:
            name = os.path.realpath(path)
            if not os.path.isdir(name):  # noqa: PTH112
                self._archive(name)
            elif is_layout(name):
                for file, layer in layers_of(name):
                    self._crew.submit("prove", lambda file=file, layer=layer: self._layer(file, layer))  # type: ignore[misc]
            else:
                folder = self._store.folder.stat()
                skip = frozenset({(folder.st_dev, folder.st_ino)})
                self._share_out(walk(name, self._wanted.may_hold, skip, self._check))
        except (*BROKEN, FormatError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            self._emit(Noted(f"seed {str(path)!r:.200} is left out: {' '.join(str(why).split()):.200}"))

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _share_out(self, files: Iterable[Found]) -> None:
        some: list[Found] = []
        try:
            for found in files:
                if not self._wanted:
                    return
                if self._wanted.may_hold(found.size, found.name):
                    some.append(found)
                    if len(some) >= _BATCH:
                        self._crew.submit("prove", lambda some=some: self._look_at(some))  # type: ignore[misc]
                        some = []
        finally:  # an archive that breaks off is good up to there
            if some:
                self._crew.submit("prove", lambda: self._look_at(some))

    # ── files, and members of plain archives ──

    def _look_at(self, files: list[Found]) -> None:
        known = self._store.recall_seeds(sorted({found.inode for found in files}))
        fresh: list[tuple[int, int, int, bytes, bytes]] = []
        handle, path = -1, ""
        try:
            for found in files:
                self._check()
                if not self._wanted.may_hold(found.size, found.name):  # others of its size were found meanwhile
                    continue
                try:
                    if found.path != path:
                        if handle >= 0:
                            os.close(handle)
                        handle, path = -1, ""
                        handle = opened(found.path)
                        path = found.path
                    stamp, digest = known.get(found.key, (b"", b""))
                    said = digest if stamp == found.stamp else None
                    got = self._file(_reader(handle, found.at), found.size, found.name, said)
                    if got not in (None, said) and stamp_of(os.fstat(handle)) == found.stamp:
                        fresh.append((*found.key, found.stamp, got or b""))
                except OSError:
                    continue
        finally:
            if handle >= 0:
                os.close(handle)
        if fresh:
            self._store.remember_seeds(fresh)

    def _file(self, read: Read, size: int, name: str, said: bytes | None = None) -> bytes | None:
        """Take what is wanted of one file; `said` is what it hashed to once. Returns what it hashes to, if asked."""
        digest = said
        if self._wanted.has_file(size) and (said is None or self._wanted.lacks(said, size)):
            data = read(0, size) if size <= _LONG else None
            digest = hashlib.sha256(data).digest() if data is not None else self._hash(read, size)
            self._keep(digest, size, read, 0, data)
        for one in self._wanted.slices(size, name):
            self._check()
            data = read(one.at, one.size) if one.size <= _LONG else None
            if data is None or hashlib.sha256(data).digest() == one.digest:
                self._keep(one.digest, one.size, read, one.at, data)
        return digest

    def _hash(self, read: Read, size: int) -> bytes:
        hasher = hashlib.sha256()
        for piece in self._pieces(read, 0, size):
            hasher.update(piece)
        return hasher.digest()

    def _pieces(self, read: Read, start: int, size: int) -> Iterator[bytes]:
        for at in range(start, start + size, _PIECE):
            self._check()
            yield read(at, min(_PIECE, start + size - at))

    def _keep(self, digest: bytes, size: int, read: Read, at: int, data: bytes | None) -> None:
        """`data` has this digest; where it is too long to be at hand it is read, and proved, as it is copied."""
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
            self._count += 1
        return True

    # ── archives and layers ──

    def _archive(self, path: str, base: int = 0, length: int | None = None) -> None:
        """A tar, compressed or not; or with `length` the layer at `base` of a saved image."""
        handle = opened(path)
        try:
            is_nested = length is not None
            kind = kind_of(handle, base)
            if kind == "packed":
                self._stream(_contents(handle, base, length))
            elif kind == "tar" or not is_nested:
                self._share_out(self._members(path, handle, base, is_nested=is_nested))
        finally:
            os.close(handle)

    def _members(self, path: str, handle: int, base: int, *, is_nested: bool) -> Iterator[Found]:
        state = os.fstat(handle)
        inode, stamp = inode_of(state), stamp_of(state)
        for name, at, size in members(Seekable(handle, base)):
            if not is_nested and is_layer(name):
                self._crew.submit("prove", lambda at=at, size=size: self._nested(path, at, size))  # type: ignore[misc]
            yield Found(path, base + at, size, name, inode, stamp)

    def _nested(self, path: str, at: int, size: int) -> None:
        with suppress(*BROKEN, FormatError):
            self._archive(path, at, size)

    def _layer(self, path: str, layer: Descriptor) -> None:
        """One blob of a layout; what is wrong with it does not matter."""
        try:
            handle = opened(path)
        except OSError:
            return
        try:
            toc = toc_of(handle, layer)
            if toc is None:
                self._stream(_contents(handle, 0, None))
                return
            for digest, start, end, size in zip(toc.digests, toc.starts, toc.ends, toc.chunk_sizes, strict=True):
                if self._wanted.lacks(digest, size):
                    self._check()
                    self._frame(handle, digest, size, ByteRange(start, end))
        except (*BROKEN, FormatError):
            pass
        finally:
            os.close(handle)

    def _frame(self, handle: int, digest: bytes, size: int, span: ByteRange) -> None:
        """A chunk as a layer has it, compressed."""
        with suppress(FormatError):
            if max(size, span.size) > _LONG:
                packed = partial(_contents, handle, span.start, span.size)
                if self._packer.add_long(digest, size, lambda: frames.stream(packed(), most=size)):
                    self._took(digest, size)
                return
            frame = read_at(handle, span.start, span.size)
            if hashlib.sha256(frames.decode(frame, size)).digest() == digest and self._took(digest, size):
                self._packer.add(digest, size, frame)

    def _stream(self, blob: Iterator[bytes]) -> None:
        """A compressed tar, from its beginning to its end."""
        source = Forward(unpacked(blob))
        for name, at, size in members(source):
            self._check()
            if not self._wanted:
                return
            if not self._wanted.may_hold(size, name):
                continue
            source.seek(at)
            if size <= _LONG:
                data = source.read(size)
                self._file(lambda start, length, data=data: data[start : start + length], len(data), name)  # type: ignore[misc]
                continue
            with TemporaryFile(dir=self._store.folder) as spool:
                for start in range(0, size, _PIECE):
                    self._check()
                    spool.write(source.read(min(_PIECE, size - start)))
                spool.flush()
                self._file(_reader(spool.fileno(), 0), size, name)


def _contents(handle: int, at: int, length: int | None) -> Iterator[bytes]:
    """To the end of the file, or so many bytes."""
    end = at + length if length is not None else 1 << 62
    while piece := read_at(handle, at, min(_PIECE, end - at)):
        yield piece
        at += len(piece)


def _reader(handle: int, base: int) -> Read:
    return lambda at, size: read_at(handle, base + at, size)
