"""Plan each layer: which byte ranges to fetch, the exact, the lean or the whole way, given what the store has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zchunked.download.coalesce import Run
from zchunked.download.orders import Order
from zchunked.layers.metadata import LayerIndex
from zchunked.layers.stand_ins import Frame, StandIns, choose_stand_ins, find_frames
from zchunked.layers.stand_ins import Place as FramePlace
from zchunked.oci.digest import Digest
from zchunked.options import GapOptions
from zchunked.pull.estimates import LinkConditions
from zchunked.pull.layer import LayerTask
from zchunked.pull.lean_need import check_loose, held_elsewhere, wanted_of
from zchunked.pull.request_shape import MOVED, RequestShape, gap_policy
from zchunked.pull.ways import AHEAD, FASTER_WHOLE, Way, WayCost, choose, cost_of, is_worth_reading, rough_cost
from zchunked.ranges import ByteRange, Spans, merge, ranges, subtract, total
from zchunked.store import Store
from zchunked.store.chunks import Place

_COLD_SHARE = 0.875  # of a layer of which nothing is here: lean has to need less of it than that


class Scheduler:
    """Gives the layers of a pull their ways and orders, one after the other. For one thread.

    What one layer will bring, those after it need not fetch: so their order decides who fetches what, and the same
    layers in the same order make the same plan, whenever each of them comes.
    """

    def __init__(
        self,
        store: Store,
        gaps: GapOptions,
        *,
        may_take_chunks: bool = False,
        is_plan: bool = False,
    ) -> None:
        """`may_take_chunks`: bytes alone decide for the lean way: seeds hold chunks, or nothing may be fetched.

        `is_plan`: costs are told, so they are those of the very requests.
        """
        self._store, self._frugality = store, gaps
        self._is_plan = is_plan
        self._may_take_chunks = may_take_chunks and not gaps.exact
        self._coming: dict[bytes, Place] = {}  # chunks that layers before this one will bring
        self._coming_frames: dict[Frame, FramePlace] = {}
        self._whole_ones: list[LayerTask] = []  # not among these yet: who knows who asks
        self._done: set[Digest] = set()
        self._planned: list[LayerTask] = []
        self._rates: dict[Digest, float] = {}  # of the link, by which layers come whole
        self._terms: dict[Digest, RequestShape] = {}

    def plan(self, work: LayerTask, means: LinkConditions, *, coming: Sequence[ByteRange] = ()) -> Order:
        """Reads the store. `coming`: what of the blob's tail is being fetched just now."""
        blob = work.layer.digest
        here = merge([*self._store.covered(blob), *coming])
        if work.way != "whole":
            self._meet_whole_ones()
            stand_ins = self._look_up(work, here)
            if work.way is None:
                self._choose(work, stand_ins, means, here)
            if work.way == "exact":
                work.stand_ins = stand_ins
        if work.parts is not None:
            order = self._order_lean(work, work.parts, means, here, coming)
        else:
            order = self._order_blob(work, means, here, coming)
        self._done.add(blob)
        self._planned.append(work)
        if means.link.rate is not None:
            self._rates[blob] = means.link.rate
        work.order = order
        return order

    def has_planned(self, blob: Digest) -> bool:
        """Whether the layer has an order."""
        return blob in self._done

    def is_coming(self, chunk: bytes) -> bool:
        """Whether a layer that has been planned brings the chunk of this digest. For any thread; a hint."""
        return chunk in self._coming

    def early_runs(self, left: list[ByteRange], means: LinkConditions, spans: int) -> list[Run]:
        """Requests, of `spans` at most, for what is wanted of a layer that is not planned yet. For any thread."""
        policy = gap_policy(self._frugality, means.link, means.jobs, left)
        return RequestShape(policy, means.jobs, spans, 0).runs(left)

    # ── ways ──

    def look_up(self, work: LayerTask) -> None:
        """Find the frames of a layer that the store had before this pull. For any thread."""
        if work.frames is not None:
            work.known = find_frames(self._store, work.layer.digest, work.frames, self._done.copy())

    def _look_up(self, work: LayerTask, here: list[ByteRange]) -> StandIns:
        frames, blob = work.frames, work.layer.digest
        if frames is None:
            return StandIns()
        if work.known is None or work.is_again:
            self.look_up(work)
        assert work.known is not None
        coming = self._coming_frames
        if work.way is None:  # it may come another way
            coming = dict(coming)
        return choose_stand_ins(blob, frames, work.known, coming, Spans(here), work.trust, work.refused)

    def _choose(self, work: LayerTask, stand_ins: StandIns, means: LinkConditions, here: list[ByteRange]) -> None:
        """Fill `ways`, and take one."""
        gaps, contents = self._frugality, work.contents
        assert contents is not None
        is_known = any(source != work.layer.digest for source in stand_ins.blobs)
        if gaps.exact and not self._is_plan:  # nothing to choose
            work.way = "exact" if is_known else "whole"
            self._explain(work, is_known=is_known)
            return
        work.ways = self._costs_of(work, contents, stand_ins, means, here)
        by_way = {cost.way: cost for cost in work.ways}
        link, costs, whole = means.link, means.costs, work.layer.size - total(here)
        if gaps.is_metered and "lean" in by_way:
            work.way = "lean"
        elif gaps.is_metered or gaps.exact:
            work.way = "exact" if is_known else "whole"
        elif self._may_take_chunks and "lean" in by_way:
            work.way = min(work.ways, key=lambda cost: (cost.bytes, cost.way)).way
        elif is_known and self._is_plan and not is_worth_reading(contents.location.toc.span.size, whole, link, costs):
            work.way = "whole"  # as the pull will find out before it reads what was read here
        elif is_known:
            work.way = choose(work.ways, is_rate_known=link.rate is not None).way
        else:
            lean, plain = by_way.get("lean"), by_way["whole"]
            saves = lean is not None and lean.bytes < plain.bytes * _COLD_SHARE
            possible = [plain, lean] if saves and lean else [plain]
            work.way = choose(possible, is_rate_known=link.rate is not None).way
        self._explain(work, is_known=is_known)

    def _explain(self, work: LayerTask, *, is_known: bool) -> None:
        work.entry.reason = _why(work, is_known=is_known, is_metered=self._frugality.is_metered)
        if work.way == "whole":
            work.entry.mode = "whole"

    def _costs_of(
        self,
        work: LayerTask,
        contents: LayerIndex,
        stand_ins: StandIns,
        means: LinkConditions,
        here: list[ByteRange],
    ) -> list[WayCost]:
        """Exact and whole always, lean where a tar-split makes it possible."""
        link, jobs, costs, frames = means.link, means.jobs, means.costs, work.frames
        whole = subtract([ByteRange(0, work.layer.size)], here)
        missing = subtract(whole, stand_ins.spans())
        hashing = work.layer.size * costs.byte
        count = len(frames) if frames is not None else 0

        def cost(way: Way, needed: list[ByteRange], work_seconds: float) -> WayCost:
            shape = self._terms_for(work, means, needed)
            if self._is_plan:
                return cost_of(way, shape.runs(needed), work_seconds, link, jobs)
            return rough_cost(way, needed, work_seconds, link, jobs, shape.spans, shape.policy)

        made = [
            cost("exact", missing, hashing + count * costs.frame * (1.0 if self._is_plan else AHEAD)),
            cost("whole", whole, hashing),
        ]
        if contents.tarsplit is not None:
            need = subtract(merge([*self._lean_need(work, contents), *contents.vouched]), here)
            making = len(contents.toc.starts) * costs.chunk + sum(contents.toc.sizes) * costs.tar_byte
            made.insert(1, cost("lean", need, making))
        return made

    def _lean_need(self, work: LayerTask, contents: LayerIndex) -> list[ByteRange]:
        known = work.known.contents if work.known is not None else set()
        toc = contents.toc
        ours = [
            chunk
            for digest, chunk in contents.own_chunks().items()
            if digest not in known and digest not in self._coming
        ]
        return merge(ranges([toc.starts[chunk] for chunk in ours], [toc.ends[chunk] for chunk in ours]))

    # ── orders ──

    def _order_blob(
        self, work: LayerTask, means: LinkConditions, here: list[ByteRange], coming: Sequence[ByteRange]
    ) -> Order:
        """What of the blob nothing stands in for."""
        layer, contents = work.layer, work.contents
        wanted = subtract([ByteRange(0, layer.size)] if layer.size else [], work.stand_ins.spans())
        tail = [ByteRange(contents.payload_end, layer.size)] if contents is not None else []
        left = subtract(wanted, here)
        terms = self._terms[layer.digest] = self._terms_for(work, means, left)
        runs = [run for whole in terms.runs(left) if (run := tuple(subtract(whole, coming)))]
        self._whole_ones.append(work)
        self._count_cached(work, min(layer.size, work.here_before + self._held(work)))
        return Order(layer, runs, wanted, tail)

    def _order_lean(
        self,
        work: LayerTask,
        contents: LayerIndex,
        means: LinkConditions,
        here: list[ByteRange],
        coming: Sequence[ByteRange],
    ) -> Order:
        """Checks what an earlier run left unchecked."""
        own = contents.own_chunks()
        found, coming_chunks = self._find(own), self._coming
        if work.refused_chunks:
            blob = work.layer.digest
            found = {key: place for key, place in found.items() if place.blob == blob or key not in work.refused_chunks}
            coming_chunks = {key: place for key, place in self._coming.items() if key not in work.refused_chunks}
        if work.here_before and (bad := check_loose(contents, own, self._store, found)):
            here = subtract(here, bad)
        wanted, metadata, checks = wanted_of(contents, work.places, own, found, coming_chunks)
        self._coming |= coming_chunks
        left = subtract(wanted, here)
        terms = self._terms[work.layer.digest] = self._terms_for(work, means, left)
        runs = [run for whole in terms.runs(left) if (run := tuple(subtract(whole, coming)))]
        self._coming_frames |= {
            (digest, place.length): (place.blob, place.start)
            for digest, place in work.places.items()
            if place.blob == work.layer.digest
        }
        self._count_cached(work, min(work.layer.size, work.here_before + held_elsewhere(work, found)))
        return Order(work.layer, runs, wanted, sorted(metadata), checks)

    def _held(self, work: LayerTask) -> int:
        """Bytes of the frames that were in the store before this pull, in other blobs."""
        its, fetched = work.stand_ins, {work.layer.digest, *self._done}
        return sum(
            end - start for start, end, blob in zip(its.starts, its.ends, its.blobs, strict=True) if blob not in fetched
        )

    @staticmethod
    def _count_cached(work: LayerTask, cached: int) -> None:
        # Later this pull itself may have brought what is here; but what turned out to be damaged was not.
        work.entry.cached_bytes = min(cached, work.entry.cached_bytes) if work.is_again else cached

    def _meet_whole_ones(self) -> None:
        """Enter what layers before this one fetch, all but those that come the lean way."""
        for work in self._whole_ones:
            frames, stand_ins, blob = work.frames, work.stand_ins, work.layer.digest
            if frames is None or frames.is_joined:
                continue
            elsewhere = set(stand_ins.starts)
            for key, start, length in frames.payloads():
                if start not in elsewhere:
                    self._coming_frames.setdefault((key, length), (blob, start))
                    self._coming.setdefault(key, Place(blob, start, length))
        self._whole_ones.clear()

    def _find(self, own: dict[bytes, int]) -> dict[bytes, Place]:
        """Those of the chunks that were here before this pull."""
        coming = self._coming
        found = self._store.find_chunks(own)
        for digest in coming.keys() & found.keys():
            if found[digest].blob == coming[digest].blob:
                del found[digest]
        return found

    def new_terms(self, work: LayerTask, means: LinkConditions) -> RequestShape | None:
        """How to ask for what is left, where the link or the host are no longer what the plan was made for."""
        if work.way == "whole":
            return None
        order, blob = work.order, work.layer.digest
        terms = self._terms_for(work, means, ())
        if order is None or not terms.differ(self._terms[blob]):
            return None
        terms = self._terms_for(work, means, subtract(order.wanted, self._store.covered(blob)))
        self._terms[blob] = terms
        return replace(terms, metadata=0)  # what it may cost has been spent on the runs that have begun

    def is_too_slow(self, work: LayerTask, means: LinkConditions) -> bool:
        """Whether the link is so much slower than it was taken for that a layer should not have come whole."""
        taken, rate = self._rates.get(work.layer.digest), means.link.rate
        is_by_time = work.way == "whole" and work.entry.reason == FASTER_WHOLE
        return is_by_time and rate is not None and taken is not None and rate * MOVED < taken

    def take_parts(self, work: LayerTask, means: LinkConditions, left: list[ByteRange]) -> list[Run]:
        """The same of a layer that comes whole and whose TOC was read since: requests for `left`, which nobody has
        asked for yet, without what stands in for it; then it comes the exact way.
        """
        blob, frames = work.layer.digest, work.frames
        if frames is not None and work.known is not None:
            others = {place for other in self._planned for place in other.frames_of(blob)}
            rest = Spans(subtract([ByteRange(0, work.layer.size)], left))
            known, coming = work.known, dict(self._coming_frames)
            work.stand_ins = choose_stand_ins(blob, frames, known, coming, rest, work.trust, work.refused | others)
            work.way, work.entry.mode, work.entry.reason = "exact", "partial", None
            work.order.want(subtract(work.order.wanted, work.stand_ins.spans())) if work.order else None
        left = subtract(left, work.stand_ins.spans())
        shape = self._terms[blob] = self._terms_for(work, means, left)
        return shape.runs(left)

    def _terms_for(self, work: LayerTask, means: LinkConditions, needed: Sequence[ByteRange]) -> RequestShape:
        vouched = total(work.contents.vouched) if work.contents and work.way != "whole" else 0
        policy = gap_policy(self._frugality, means.link, means.jobs, needed)
        return RequestShape(policy, means.jobs, means.spans_per_request(work.layer), vouched, means.link.part)


def _why(work: LayerTask, *, is_known: bool, is_metered: bool) -> str | None:
    """What the receipt says where the way is not the obvious one; None for exact with something here."""
    if work.way == "exact":
        return "no tar-split is trusted, so the lean way is not possible" if is_metered else None
    if work.way == "lean":
        return "asked for by --lean or --max-gap 0" if is_metered else "it needs the fewest bytes"
    if is_known:
        return FASTER_WHOLE
    is_foreign = work.known is not None and bool(work.known.contents)
    return "what is stored of it was written by another encoder" if is_foreign else "nothing of it is in the store"
