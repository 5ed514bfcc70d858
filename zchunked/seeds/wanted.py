"""What seeds are searched for: chunks that the store lacks, and the files that would hold them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from zchunked.layers.metadata import LayerIndex
from zchunked.ranges import ByteRange, Spans
from zchunked.store import Store

_MOST_LAYOUTS = 8  # large files of one size whose chunks are tried on a seed of that size


@dataclass(frozen=True, slots=True)
class Slice:
    """A chunk of a file: decoded bytes [at, at + size), and their raw digest."""

    at: int
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """A file of several chunks: its size, and those of its chunks that are lacking."""

    size: int
    slices: tuple[Slice, ...]


class Wanted:
    """Chunks that the store lacks, until they are found. Thread-safe.

    A file of one chunk is known by its digest. A larger one is cut where its content says, so its
    chunks are tried one by one: on files of its size, and on a file of its name, from the beginning
    and from the end.
    """

    def __init__(self, layers: Iterable[LayerIndex], store: Store) -> None:
        self._lock = threading.Lock()
        self._lacking: dict[bytes, int] = {}
        self._files: dict[int, set[bytes]] = {}
        self._layouts: dict[int, list[Layout]] = {}
        self._names: dict[str, Layout] = {}
        for index in layers:
            self._add(index, store)
        self.count = len(self._lacking)

    def _add(self, index: LayerIndex, store: Store) -> None:
        toc = index.toc
        solid = {digest for digest, hole in zip(toc.digests, toc.holes, strict=True) if not hole}
        found = store.find_chunks(list(solid))
        here = Spans(store.covered(index.layer.digest))
        lacking = {
            digest
            for digest, start, end in zip(toc.digests, toc.starts, toc.ends, strict=True)
            if digest in solid
            and digest not in found
            and here.overlap(ByteRange(start, end)) < end - start
        }
        for entry, name in enumerate(toc.names):
            first, end = toc.first[entry], toc.first[entry + 1]
            if end - first == 1 and toc.digests[first] in lacking:
                self._files.setdefault(toc.sizes[entry], set()).add(toc.digests[first])
                self._lacking[toc.digests[first]] = toc.sizes[entry]
            elif end - first > 1 and not lacking.isdisjoint(toc.digests[first:end]):
                at, slices = 0, []
                for chunk in range(first, end):
                    digest, size = toc.digests[chunk], toc.chunk_sizes[chunk]
                    if digest in lacking:
                        slices.append(Slice(at, size, digest))
                        self._lacking[digest] = size
                    at += size
                layout = Layout(at, tuple(slices))
                self._names[name.removeprefix("./").strip("/")] = layout
                if (
                    layout not in (same := self._layouts.setdefault(at, []))
                    and len(same) < _MOST_LAYOUTS
                ):
                    same.append(layout)

    def __bool__(self) -> bool:
        return bool(self._lacking)

    def lacks(self, digest: bytes, size: int) -> bool:
        return self._lacking.get(digest) == size

    def take(self, digest: bytes, size: int) -> bool:
        """The caller has this chunk, proved. False if another worker has it, or it is unwanted."""
        with self._lock:
            if self._lacking.get(digest) != size:
                return False
            del self._lacking[digest]
            self._files.get(size, set()).discard(digest)
            return True

    def may_hold(self, size: int, name: str) -> bool:
        """Whether a file of this size, or with this path below its seed, is worth a look."""
        return bool(
            size and (self._files.get(size) or size in self._layouts or name in self._names)
        )

    def has_file(self, size: int) -> bool:
        """Whether a file of one chunk and this size is wanted: then hashing it is worth it."""
        return bool(self._files.get(size))

    def slices(self, size: int, name: str) -> Iterator[Slice]:
        """Where chunks of larger files may lie in a file of this size and path."""
        layouts: Sequence[Layout] = self._layouts.get(size, ())
        for layout in layouts:
            yield from self._still(layout, 0, size)
        named = self._names.get(name)
        if named is not None and named.size != size:
            yield from self._still(named, 0, size)
            yield from self._still(named, size - named.size, size)

    def _still(self, layout: Layout, shift: int, size: int) -> Iterator[Slice]:
        for one in layout.slices:
            at = one.at + shift
            if 0 <= at <= size - one.size and self.lacks(one.digest, one.size):
                yield Slice(at, one.size, one.digest)
