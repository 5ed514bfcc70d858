"""From what the layers hold and what the store has to orders: what comes in parts, what comes whole, what is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, repeat
from operator import sub

from zchunked.download.coalesce import PART_BYTES, GapPolicy, Link, Run, missing, runs_for
from zchunked.download.orders import ChunkChecks, Order
from zchunked.errors import ZPullError
from zchunked.layers.metadata import LayerIndex
from zchunked.layers.proof import Proof
from zchunked.layers.rebuild import are_chunks
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.options import GapOptions
from zchunked.pull.inspect import LayerMetadata
from zchunked.ranges import ByteRange, Spans, merge, ranges, subtract, total
from zchunked.receipt import Estimate, LayerEntry
from zchunked.store import Store
from zchunked.store.store import Place

_WHOLE_PREMIUM = 1.125  # a layer of which nothing is here comes whole at up to this multiple of its parts
_MOVED = 4.0  # an estimate that has moved by this factor makes another plan


@dataclass(slots=True, eq=False)
class LayerTask:
    """One distinct layer on its way. `contents` once its TOC is understood; `places` say where its chunks lie."""

    layer: Descriptor
    diff_id: Digest
    entry: LayerEntry
    is_whole: bool = False
    contents: LayerIndex | None = None
    here_before: int = 0  # bytes of the blob itself
    places: dict[bytes, Place] = field(default_factory=dict)
    order: Order | None = None
    proof: Proof | None = None
    failure: ZPullError | None = None
    is_again: bool = False  # it was planned before, and is now once more
    again: list[ByteRange] = field(default_factory=list)  # what came damaged and was ordered once more

    @property
    def parts(self) -> LayerIndex | None:
        """Its contents if it comes in parts, else None."""
        return None if self.is_whole else self.contents

    @property
    def is_understood(self) -> bool:
        return self.is_whole or self.contents is not None

    def understand(self, insight: LayerMetadata) -> None:
        self.contents = insight.contents
        self.here_before = self.entry.cached_bytes = insight.here_before
        if insight.is_here:
            self.is_whole, self.entry.mode = True, "cached"
        elif insight.reason is not None:
            self.come_whole(insight.reason)

    def come_whole(self, reason: str) -> None:
        self.is_whole, self.entry.mode, self.entry.reason = True, "whole", reason


def gap_policy(options: GapOptions, link: Link, jobs: int) -> GapPolicy:
    """Which gaps are bought on this link."""
    singles = link.singles(jobs)
    if options.max_gap is not None:
        return GapPolicy(most=options.max_gap, share=float("inf") if options.max_gap else 0.0, singles=singles)
    return GapPolicy(most=link.worth_of_request(jobs), singles=singles)


@dataclass(frozen=True, slots=True)
class LinkConditions:
    """What a schedule may count on: workers, the link, and how many spans of a blob one request may ask for."""

    jobs: int
    link: Link
    spans_per_request: Callable[[Descriptor], int]
    is_free: bool = False  # the source is on this machine


@dataclass(frozen=True, slots=True)
class RequestShape:
    """What a layer's requests were made for. `metadata`: bytes of it that come besides and are needed all the same."""

    policy: GapPolicy
    jobs: int
    spans: int
    metadata: int

    def runs(self, left: list[ByteRange]) -> list[Run]:
        return runs_for(left, policy=self.policy, jobs=self.jobs, spans=self.spans, metadata=self.metadata)

    def differ(self, before: RequestShape) -> bool:
        """By so much that other requests are worth it. Where many spans share a request, the link hardly matters."""
        low, high = sorted([self.policy.most, before.policy.most])
        return self.spans != before.spans or (self.spans == 1 and high > low * _MOVED)


class Scheduler:
    """Gives the layers of a pull their orders and places, one after the other. For one thread.

    What one layer will bring, those after it need not fetch: so their order decides who fetches what, and the same
    layers in the same order make the same plan, whenever each of them comes.
    """

    def __init__(self, store: Store, frugality: GapOptions) -> None:
        self._store, self._frugality = store, frugality
        self._coming: dict[bytes, Place] = {}  # chunks that layers before this one will bring
        self._whole: set[Digest] = set()  # those of them that come whole
        self._whole_ones: list[tuple[LayerIndex, dict[bytes, int]]] = []  # not among `_coming` yet: who knows who asks
        self._terms: dict[Digest, RequestShape] = {}

    def plan(self, work: LayerTask, means: LinkConditions, *, on_its_way: bool = False) -> Order:
        """Reads the store; checks what an earlier run left unchecked. `on_its_way`: somebody is bringing TOC and
        tar-split just now.
        """
        contents, here = work.contents, self._store.covered(work.layer.digest)
        own = contents.own_chunks() if contents else {}
        found = self._find(own)
        coming: list[ByteRange] = []
        if on_its_way and contents is not None:
            coming = merge([contents.location.metadata, *contents.location.parts])
            here = merge([*here, *coming])
        if work.parts is not None:
            if work.here_before and (bad := _check_loose(work.parts, own, self._store, found)):
                here = subtract(here, bad)
            if reason := self._why_whole(work.parts, own, found, here):
                work.come_whole(reason)
        if work.parts is not None:
            wanted, metadata, checks = _wanted(work.parts, work.places, own, found, self._coming)
        else:
            wanted, metadata, checks = [ByteRange(0, work.layer.size)] if work.layer.size else [], [], ChunkChecks()
            self._whole.add(work.layer.digest)
            if contents is not None:
                self._whole_ones.append((contents, own))
        terms = self._terms[work.layer.digest] = self._terms_for(work, means)
        runs = [run for whole in terms.runs(subtract(wanted, here)) if (run := tuple(subtract(whole, coming)))]
        work.order = Order(work.layer, runs, wanted, sorted(metadata), checks)
        cached = min(work.layer.size, work.here_before + _held_elsewhere(work, found))
        # Later this pull itself may have brought what is here; but what turned out to be damaged was not.
        work.entry.cached_bytes = min(cached, work.entry.cached_bytes) if work.is_again else cached
        return work.order

    def _find(self, own: dict[bytes, int]) -> dict[bytes, Place]:
        """Those of the chunks that were here before this pull."""
        coming = self._coming
        if own:
            for contents, its in self._whole_ones:
                for digest, chunk in its.items():
                    coming.setdefault(digest, contents.place(chunk))
            self._whole_ones.clear()
        found = self._store.find_chunks(own)
        for digest in coming.keys() & found.keys():
            if found[digest].blob == coming[digest].blob:
                del found[digest]
        return found

    def new_terms(self, work: LayerTask, means: LinkConditions) -> RequestShape | None:
        """How to ask for what is left, where the link or the host are no longer what the plan was made for."""
        if work.parts is None:
            return None
        terms = self._terms_for(work, means)
        if not terms.differ(self._terms[work.layer.digest]):
            return None
        self._terms[work.layer.digest] = terms
        return replace(terms, metadata=0)  # what it may cost has been spent on the runs that have begun

    def _terms_for(self, work: LayerTask, means: LinkConditions) -> RequestShape:
        vouched = total(work.parts.vouched) if work.parts else 0
        policy = gap_policy(self._frugality, means.link, means.jobs)
        return RequestShape(policy, means.jobs, means.spans_per_request(work.layer), vouched)

    def _why_whole(
        self, contents: LayerIndex, own: dict[bytes, int], found: dict[bytes, Place], here: list[ByteRange]
    ) -> str | None:
        """The reason to take a layer whole although it could come in parts; None where parts are better."""
        if self._frugality.exact:
            return "asked for by --exact"
        if self._frugality.max_gap == 0:
            return None
        blob, coming, toc = contents.layer.digest, self._coming, contents.toc
        if any(place.blob != blob for place in found.values()):
            return None
        # What comes in parts with another layer need not come with this one, too; what comes whole, comes anyway.
        ours = [
            chunk for digest, chunk in own.items()
            if (place := coming.get(digest)) is None or place.blob in self._whole
        ]  # fmt: skip
        chunks = ranges([toc.starts[chunk] for chunk in ours], [toc.ends[chunk] for chunk in ours])
        whole = contents.layer.size - total(here)
        if whole <= total(missing([*chunks, *contents.metadata], here)) * _WHOLE_PREMIUM:
            return "nothing of it is here, and whole it costs little more than its parts"
        return None


def _check_loose(
    contents: LayerIndex, own: dict[bytes, int], store: Store, found: dict[bytes, Place]
) -> list[ByteRange]:
    """Chunks whose bytes an earlier run left behind, but not yet the row that says so. Returns where bad ones lay."""
    blob, toc = contents.layer.digest, contents.toc
    here = Spans(store.covered(blob))
    loose = [
        chunk for digest, chunk in own.items() if digest not in found and here.hold(toc.starts[chunk], toc.ends[chunk])
    ]
    loose.sort(key=toc.starts.__getitem__)
    asked = [(toc.starts[chunk], toc.ends[chunk], toc.chunk_sizes[chunk], toc.digests[chunk]) for chunk in loose]
    good, bad = [], []
    for (start, end, size, digest), is_good in zip(asked, are_chunks(store, blob, asked), strict=True):
        if is_good:
            good.append((digest, start, end - start, size))
            found[digest] = Place(blob, start, end - start)
        else:
            bad.append(ByteRange(start, end))
    if good:
        store.add_chunks(blob, contents.layer.size, sorted(good))
    return store.distrust(blob, bad) if bad else []


def _wanted(
    contents: LayerIndex,
    places: dict[bytes, Place],
    own: dict[bytes, int],
    found: dict[bytes, Place],
    coming: dict[bytes, Place],
) -> tuple[list[ByteRange], list[ByteRange], ChunkChecks]:
    """Spans that are wanted of the layer's blob, those of them that are metadata, and the chunks to check.

    Fills `places`, and adds to `coming` what this layer will bring.
    """
    toc = contents.toc
    places |= found
    left = own.keys() - found.keys()
    places |= {digest: coming[digest] for digest in left & coming.keys()}
    ours = [own[digest] for digest in left - coming.keys()]
    ours.sort(key=toc.starts.__getitem__)
    starts, ends = [toc.starts[chunk] for chunk in ours], [toc.ends[chunk] for chunk in ours]
    digests = [toc.digests[chunk] for chunk in ours]
    new = dict(zip(digests, map(Place, repeat(contents.layer.digest), starts, map(sub, ends, starts)), strict=True))
    places |= new
    coming |= new
    checks = ChunkChecks(starts, ends, [toc.chunk_sizes[chunk] for chunk in ours], digests)
    metadata = contents.metadata
    return merge([*ranges(starts, ends), *metadata]), metadata, checks


def _held_elsewhere(work: LayerTask, found: dict[bytes, Place]) -> int:
    """Compressed bytes of the layer's chunks that other blobs in the store hold."""
    contents = work.parts
    if contents is None:
        return 0
    toc, blob = contents.toc, work.layer.digest
    elsewhere = {digest for digest, place in found.items() if place.blob != blob}
    return sum(compress(map(sub, toc.ends, toc.starts), map(elsewhere.__contains__, toc.digests)))


def estimate(works: Sequence[LayerTask], means: LinkConditions, *, first_bytes: int, first_requests: int) -> Estimate:
    """What working the orders off will cost, after the manifest, which counts as `first_…`."""
    if means.is_free:
        return Estimate(0, 0, 0.0)
    runs = [run for work in works if work.order for run in work.order.runs]
    size = first_bytes + sum(total(run) + (len(run) * PART_BYTES if len(run) > 1 else 0) for run in runs)
    requests = first_requests + len(runs)
    return Estimate(size, requests, round(means.link.seconds(size, requests, means.jobs), 1))
