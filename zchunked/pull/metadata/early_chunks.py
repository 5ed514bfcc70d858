"""Request chunks of a layer while its table of contents, stored earlier, is read again.

To read a long table and to plan by it takes a second or two. A run that is killed sooner would
fetch nothing, and neither would all that follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress

from zchunked.download.blobs.fetch_plan import ChunkChecks, FetchPlan
from zchunked.download.coalesce import Run, missing
from zchunked.download.downloader import Downloader
from zchunked.download.workers import WorkerPool
from zchunked.formats.annotations import Location
from zchunked.formats.frames.frame_map import NO_KEY
from zchunked.formats.tables.toc_reader import TocReader
from zchunked.oci.digest import RAW_SIZE
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, Spans
from zchunked.store import Store

# For each layer: what a fast link carries until the plan is made, whose requests are better
_MOST_BYTES = 8 << 20
_MOST_HEADERS = 4 << 10  # bytes of a header frame
KnownOf = Callable[[set[bytes]], Collection[bytes]]
"""Which of these keys the store has."""


@dataclass(frozen=True, slots=True)
class EarlyRules:
    """When chunks may be requested before their layer is planned, and how.

    `runs`: the requests for these spans of a layer. `is_ready`: whether `known_of` can tell which
    chunks the store has. `is_planned`: whether another layer fetches the chunk of this digest.
    `known_headers`: the keys of header frames, among these, that the store has; None where none is
    wanted.
    """

    runs: Callable[[Descriptor, list[ByteRange]], list[Run]]
    is_ready: Callable[[], bool]
    known_of: KnownOf
    is_planned: Callable[[bytes], bool]
    known_headers: KnownOf | None


def is_toc_proved(store: Store, layer: Descriptor, location: Location) -> bool:
    """Whether all of the table is in the store, and is what its digest promises."""
    span = location.toc.span
    # Joined frames: ends are known at the very end
    if location.is_joined or not store.covers(layer.digest, span):
        return False
    hasher = hashlib.sha256()
    for piece in store.stream(layer.digest, span):
        hasher.update(piece)
    return f"sha256:{hasher.hexdigest()}" == location.toc_digest


class EarlyChunks:
    """Requests chunks of one layer early. `look` is for the worker that reads the TOC.

    It is wanted whichever way the layer takes: the store has no such content.
    """

    def __init__(
        self,
        store: Store,
        downloader: Downloader,
        layer: Descriptor,
        begun: list[FetchPlan],
        rules: EarlyRules,
    ) -> None:
        """`begun`: gets each order while it is being worked off."""
        self._store, self._downloader, self._layer = store, downloader, layer
        self._begun, self._rules = begun, rules
        self._next = 0  # number of the first chunk that was not looked at
        self._end = 0  # of the one before it
        self._files = 0  # how many of the files were looked at
        self._left = _MOST_BYTES
        self._seen: set[bytes] = set()

    @property
    def is_ready(self) -> bool:
        return self._rules.is_ready()

    def look(self, reader: TocReader, pool: WorkerPool) -> None:
        """Have the pool fetch what is missing of the chunks that were read since the last call."""
        if self._left <= 0:
            return
        starts, ends, sizes, digests, holes = reader.chunks_from(self._next)
        self._next += len(starts)
        headers = self._headers(reader, starts, ends)
        here = self._store.covered(self._layer.digest)
        held = Spans(here)
        is_here = held.hold_each(starts, ends)
        self._seen.update(compress(digests, is_here))
        lacking = [
            chunk
            for chunk, (hole, has) in enumerate(zip(holes, is_here, strict=True))
            if not (hole or has)
        ]
        known = self._rules.known_of({digests[chunk] for chunk in lacking})
        taken: list[int] = []
        for chunk in sorted(lacking, key=starts.__getitem__):
            digest = digests[chunk]
            if self._left <= 0:
                break
            if (
                digest not in known
                and digest not in self._seen
                and not self._rules.is_planned(digest)
            ):
                self._seen.add(digest)
                self._left -= ends[chunk] - starts[chunk]
                taken.append(chunk)
        if not taken:
            return
        # Fetched later, the header frames beside each would be two parts more: 9 % more bytes than
        # planned, for 30,000 files of which 9,000 changed.
        wanted = headers.around(taken, self._rules.known_headers)
        checks = ChunkChecks(
            [starts[chunk] for chunk in taken],
            [ends[chunk] for chunk in taken],
            [sizes[chunk] for chunk in taken],
            [digests[chunk] for chunk in taken],
        )
        plan = FetchPlan(
            self._layer, self._rules.runs(self._layer, missing(wanted, here)), wanted, [], checks
        )
        self._begun.append(plan)
        pool.submit("fetch", partial(self._fetch, plan, pool))

    def _headers(self, reader: TocReader, starts: Sequence[int], ends: Sequence[int]) -> _Headers:
        """The header frames between the chunks that were read since the last call."""
        prints = reader.fingerprints_from(self._files)
        keys, file = [], 0
        edges = [self._end, *ends][: len(starts)]
        for start, before in zip(starts, edges, strict=True):
            keys.append(NO_KEY if start == before else prints[file : file + RAW_SIZE])
            file += RAW_SIZE * (start != before)  # chunks of one file have no header between them
        self._files += file // RAW_SIZE
        self._end = ends[-1] if ends else self._end
        return _Headers(starts, ends, edges, keys)

    def _fetch(self, plan: FetchPlan, pool: WorkerPool) -> None:
        self._downloader.fetch(plan, pool=pool, is_shared=True)
        self._begun.remove(plan)


@dataclass(frozen=True, slots=True)
class _Headers:
    """Chunks in the order of the TOC, where the one before each ends, and keys of what is between.

    No key where nothing is.
    """

    starts: Sequence[int]
    ends: Sequence[int]
    edges: Sequence[int]
    keys: Sequence[bytes]

    def around(self, chunks: Sequence[int], known_of: KnownOf | None) -> list[ByteRange]:
        """The spans of these chunks, ascending, with header frames beside them that are new."""
        wanted: set[int] = set()  # chunks whose header frame is
        if known_of is not None:
            beside = {one for chunk in chunks for one in (chunk, chunk + 1) if self._has_one(one)}
            known = known_of({self.keys[one] for one in beside})
            wanted = {one for one in beside if self.keys[one] not in known}
        return _joined(
            [self.edges[chunk] if chunk in wanted else self.starts[chunk] for chunk in chunks],
            [
                self.starts[chunk + 1] if chunk + 1 in wanted else self.ends[chunk]
                for chunk in chunks
            ],
        )

    def _has_one(self, chunk: int) -> bool:
        is_there = chunk < len(self.keys) and self.keys[chunk] != NO_KEY
        return is_there and 0 < self.starts[chunk] - self.edges[chunk] <= _MOST_HEADERS


def _joined(starts: Sequence[int], ends: Sequence[int]) -> list[ByteRange]:
    """Spans, ascending by where they start; those that touch or overlap as one."""
    spans: list[ByteRange] = []
    for start, end in zip(starts, ends, strict=True):
        if spans and start <= spans[-1].end:
            spans[-1] = ByteRange(spans[-1].start, max(end, spans[-1].end))
        else:
            spans.append(ByteRange(start, end))
    return spans
