"""From what the layers hold and what the store has to orders: what comes in parts, what comes whole, what is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zchunked.contents import Contents
from zchunked.digest import Digest
from zchunked.errors import ZPullError
from zchunked.fetch import Checks, Order
from zchunked.insight import Insight
from zchunked.layer.plan import PART_BYTES, GapPolicy, Link, missing, runs_for
from zchunked.oci import Descriptor
from zchunked.prove import Proof
from zchunked.ranges import ByteRange, Spans, ranges, total
from zchunked.reassemble import is_chunk
from zchunked.receipt import Estimate, LayerEntry
from zchunked.store import Store
from zchunked.store.store import Place

_WHOLE_PREMIUM = 1.125  # a layer of which nothing is here comes whole at up to this multiple of its parts


@dataclass(slots=True, eq=False)
class Work:
    """One distinct layer on its way. `contents` once its TOC is understood; `places` say where its chunks lie."""

    layer: Descriptor
    diff_id: Digest
    entry: LayerEntry
    is_whole: bool = False
    contents: Contents | None = None
    here_before: int = 0  # bytes of the blob itself
    places: dict[bytes, Place] = field(default_factory=dict)
    order: Order | None = None
    proof: Proof | None = None
    failure: ZPullError | None = None
    again: list[ByteRange] = field(default_factory=list)  # what came damaged and was ordered once more

    @property
    def parts(self) -> Contents | None:
        """Its contents if it comes in parts, else None."""
        return None if self.is_whole else self.contents

    @property
    def is_understood(self) -> bool:
        return self.is_whole or self.contents is not None

    def understand(self, insight: Insight) -> None:
        self.contents = insight.contents
        self.here_before = self.entry.cached_bytes = insight.here_before
        if insight.is_here:
            self.is_whole, self.entry.mode = True, "cached"
        elif insight.reason is not None:
            self.come_whole(insight.reason)

    def come_whole(self, reason: str) -> None:
        self.is_whole, self.entry.mode, self.entry.reason = True, "whole", reason


@dataclass(frozen=True, slots=True)
class Frugality:
    """`exact`: layers always come whole. `max_gap` in bytes: 0 buys no unneeded one, None leaves it to the plan."""

    exact: bool = False
    max_gap: int | None = None

    def gaps(self, link: Link, jobs: int) -> GapPolicy:
        singles = link.singles(jobs)
        if self.max_gap is not None:
            return GapPolicy(most=self.max_gap, share=float("inf") if self.max_gap else 0.0, singles=singles)
        return GapPolicy(most=link.worth_of_request(jobs), singles=singles)


@dataclass(frozen=True, slots=True)
class Means:
    """What a schedule may count on: workers, the link, and how many spans of a blob one request may ask for."""

    jobs: int
    link: Link
    spans_per_request: Callable[[Descriptor], int]
    is_free: bool = False  # the source is on this machine


def schedule(works: Sequence[Work], store: Store, frugality: Frugality, means: Means) -> None:
    """Give every work its order and its places. Reads the store; checks what an earlier run left unchecked."""
    own = {work.layer.digest: work.contents.own_chunks() for work in works if work.contents}
    found = store.find_chunks(set().union(*own.values()))
    for work in works:
        if contents := work.parts:
            chunks = own[work.layer.digest]
            if work.here_before:
                _check_loose(contents, chunks, store, found)
            if reason := _why_whole(contents, chunks, store, found, frugality):
                work.come_whole(reason)
    coming = _coming_whole(works, own)
    for work in works:
        wanted, metadata, checks = _wanted(work, own.get(work.layer.digest, {}), found, coming)
        left = missing(wanted, store.covered(work.layer.digest))
        spans = means.spans_per_request(work.layer)
        policy = frugality.gaps(means.link, means.jobs)
        vouched = total(work.parts.vouched) if work.parts else 0
        runs = runs_for(left, policy=policy, jobs=means.jobs, spans=spans, metadata=vouched)
        work.order = Order(work.layer, runs, missing(wanted, ()), sorted(metadata), checks)
        if work.failure is None:  # else this pull itself brought what is here
            work.entry.cached_bytes = min(work.layer.size, work.here_before + _held_elsewhere(work, found))


def _coming_whole(works: Sequence[Work], own: dict[Digest, dict[bytes, int]]) -> dict[bytes, Place]:
    """What layers that come whole will hold of chunks; nothing unless others come in parts and may ask for it."""
    coming: dict[bytes, Place] = {}
    if any(work.parts for work in works):
        for work in works:
            if work.contents is not None and work.parts is None:
                for digest, chunk in own[work.layer.digest].items():
                    if digest not in coming:
                        coming[digest] = work.contents.place(chunk)
    return coming


def _check_loose(contents: Contents, own: dict[bytes, int], store: Store, found: dict[bytes, Place]) -> None:
    """Chunks whose bytes an earlier run left behind, but not yet the row that says so."""
    blob, sizes = contents.layer.digest, contents.toc.chunk_sizes
    here = Spans(store.covered(blob))
    good, bad = [], []
    for digest, chunk in own.items():
        if digest not in found and here.hold(contents.toc.starts[chunk], contents.toc.ends[chunk]):
            place = contents.place(chunk)
            if is_chunk(store, place, sizes[chunk], digest):
                good.append((digest, place.start, place.length, sizes[chunk]))
                found[digest] = place
            else:
                bad.append(place.span)
    if good:
        store.add_chunks(blob, contents.layer.size, good)
    if bad:
        store.evict(blob, bad)


def _why_whole(
    contents: Contents, own: dict[bytes, int], store: Store, found: dict[bytes, Place], frugality: Frugality
) -> str | None:
    """The reason to take a layer whole although it could come in parts; None where parts are better."""
    if frugality.exact:
        return "asked for by --exact"
    if frugality.max_gap == 0:
        return None
    blob = contents.layer.digest
    if any(digest in found and found[digest].blob != blob for digest in own):
        return None
    covered = store.covered(blob)
    whole = contents.layer.size - total(covered)
    toc = contents.toc
    chunks = ranges([toc.starts[chunk] for chunk in own.values()], [toc.ends[chunk] for chunk in own.values()])
    if whole <= total(missing([*chunks, *contents.metadata], covered)) * _WHOLE_PREMIUM:
        return "nothing of it is here, and whole it costs little more than its parts"
    return None


def _wanted(
    work: Work, own: dict[bytes, int], found: dict[bytes, Place], coming: dict[bytes, Place]
) -> tuple[list[ByteRange], list[ByteRange], Checks]:
    """Spans that are wanted of the layer's blob, those of them that are metadata, and the chunks to check."""
    contents = work.parts
    if contents is None:
        return ([ByteRange(0, work.layer.size)] if work.layer.size else []), [], Checks()
    toc, places = contents.toc, work.places
    ours: list[int] = []
    for digest, chunk in own.items():
        place = found.get(digest) or coming.get(digest)
        if place is None:
            place = coming[digest] = contents.place(chunk)
            ours.append(chunk)
        places[digest] = place
    ours.sort(key=toc.starts.__getitem__)
    starts, ends = [toc.starts[chunk] for chunk in ours], [toc.ends[chunk] for chunk in ours]
    checks = Checks(starts, ends, [toc.chunk_sizes[chunk] for chunk in ours], [toc.digests[chunk] for chunk in ours])
    metadata = contents.metadata
    return [*ranges(starts, ends), *metadata], metadata, checks


def _held_elsewhere(work: Work, found: dict[bytes, Place]) -> int:
    """Compressed bytes of the layer's chunks that other blobs in the store hold."""
    contents = work.parts
    if contents is None:
        return 0
    toc, blob = contents.toc, work.layer.digest
    return sum([
        end - start
        for digest, start, end in zip(toc.digests, toc.starts, toc.ends, strict=True)
        if (place := found.get(digest)) and place.blob != blob
    ])  # fmt: skip


def estimate(works: Sequence[Work], means: Means, *, first_bytes: int, first_requests: int) -> Estimate:
    """What working the orders off will cost, after the manifest, which counts as `first_…`."""
    if means.is_free:
        return Estimate(0, 0, 0.0)
    runs = [run for work in works if work.order for run in work.order.runs]
    size = first_bytes + sum(total(run) + (len(run) * PART_BYTES if len(run) > 1 else 0) for run in runs)
    requests = first_requests + len(runs)
    return Estimate(size, requests, round(means.link.seconds(size, requests, means.jobs), 1))
