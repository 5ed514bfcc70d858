"""Import seeds: search local files for chunks that the store lacks, on the workers' prove queue."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from zchunked.download.retries.retry import Stopped
from zchunked.download.workers import WorkerPool
from zchunked.errors import FormatError
from zchunked.events import Noted
from zchunked.interfaces import Emit
from zchunked.layers.metadata import LayerIndex
from zchunked.seeds.chunk_copier import ChunkCopier, contents, reader
from zchunked.seeds.layer_reader import LayerReader
from zchunked.seeds.layouts import is_layout, layers_of
from zchunked.seeds.scan import (
    BROKEN,
    Found,
    Seekable,
    inode_of,
    is_layer,
    kind_of,
    members,
    opened,
    stamp_of,
    walk,
)
from zchunked.seeds.wanted import Wanted
from zchunked.store import Store

_BATCH = 512  # files that one task looks at


def import_seeds(
    paths: Sequence[Path],
    layers: Iterable[LayerIndex],
    store: Store,
    workers: WorkerPool,
    *,
    stop: threading.Event,
    emit: Emit,
    tick: Callable[[], None],
) -> None:
    """Copy the lacking chunks of these places into the store. Returns when all was searched.

    A place that cannot be read is noted and does no harm. LocalError when our own disk fails.
    """
    wanted = Wanted(layers, store)
    if not wanted:
        return
    importer = _Importer(store, wanted, workers, stop, emit)
    for path in paths:
        workers.submit("prove", lambda path=path: importer.inspect(path))  # type: ignore[misc]
    workers.wait(tick)
    importer.close()
    tick()


class _Importer:
    def __init__(
        self, store: Store, wanted: Wanted, workers: WorkerPool, stop: threading.Event, emit: Emit
    ) -> None:
        self._store, self._wanted, self._workers = store, wanted, workers
        self._stop, self._emit = stop, emit
        self._copier = ChunkCopier(store, wanted, self._check)
        self._layers = LayerReader(self._copier, wanted, self._check, store.folder)

    def close(self) -> None:
        self._copier.close()
        if count := self._copier.count:
            self._emit(Noted(f"seeds hold {count} of {self._wanted.count} wanted chunks"))

    def inspect(self, path: Path) -> None:
        try:
            name = os.path.realpath(path)
            if not os.path.isdir(name):  # noqa: PTH112
                self._archive(name)
            elif is_layout(name):
                for file, layer in layers_of(name):
                    self._workers.submit(
                        "prove",
                        lambda file=file, layer=layer: self._layers.layer(file, layer),  # type: ignore[misc]
                    )
            else:
                folder = self._store.folder.stat()
                skip = frozenset({(folder.st_dev, folder.st_ino)})
                self._share_out(walk(name, self._wanted.may_hold, skip, self._check))
        except (*BROKEN, FormatError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            self._emit(
                Noted(f"seed {str(path)!r:.200} is left out: {' '.join(str(why).split()):.200}")
            )

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
                        self._workers.submit("prove", lambda some=some: self._look_at(some))  # type: ignore[misc]
                        some = []
        finally:  # an archive that breaks off is good up to there
            if some:
                self._workers.submit("prove", lambda: self._look_at(some))

    # ── files, and members of plain archives ──

    def _look_at(self, files: list[Found]) -> None:
        known = self._store.recall_seeds(sorted({found.inode for found in files}))
        fresh: list[tuple[int, int, int, bytes, bytes]] = []
        handle, path = -1, ""
        try:
            for found in files:
                self._check()
                # others of its size were found meanwhile
                if not self._wanted.may_hold(found.size, found.name):
                    continue
                try:
                    if found.path != path:
                        if handle >= 0:
                            os.close(handle)
                        handle, path = -1, ""
                        handle = opened(found.path)
                        path = found.path
                    stamp, digest = known.get(found.key, (b"", b""))
                    known_digest = digest if stamp == found.stamp else None
                    got = self._copier.copy(
                        reader(handle, found.at), found.size, found.name, known_digest
                    )
                    if (
                        got not in (None, known_digest)
                        and stamp_of(os.fstat(handle)) == found.stamp
                    ):
                        fresh.append((*found.key, found.stamp, got or b""))
                except OSError:
                    continue
        finally:
            if handle >= 0:
                os.close(handle)
        if fresh:
            self._store.remember_seeds(fresh)

    # ── archives ──

    def _archive(self, path: str, base: int = 0, length: int | None = None) -> None:
        """A tar, compressed or not; or with `length` the layer at `base` of a saved image."""
        handle = opened(path)
        try:
            is_nested = length is not None
            kind = kind_of(handle, base)
            if kind == "packed":
                self._layers.compressed(contents(handle, base, length))
            elif kind == "tar" or not is_nested:
                self._share_out(self._members(path, handle, base, is_nested=is_nested))
        finally:
            os.close(handle)

    def _members(self, path: str, handle: int, base: int, *, is_nested: bool) -> Iterator[Found]:
        state = os.fstat(handle)
        inode, stamp = inode_of(state), stamp_of(state)
        for name, at, size in members(Seekable(handle, base)):
            if not is_nested and is_layer(name):
                self._workers.submit("prove", lambda at=at, size=size: self._nested(path, at, size))  # type: ignore[misc]
            yield Found(path, base + at, size, name, inode, stamp)

    def _nested(self, path: str, at: int, size: int) -> None:
        with suppress(*BROKEN, FormatError):
            self._archive(path, at, size)
