"""The layers that a pull lacks: looked into, planned, fetched and proved, all four at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial

from zchunked.download.orders import Order
from zchunked.download.session import Session
from zchunked.download.workers import WorkerPool
from zchunked.errors import FormatError, IntegrityError, RefusedError
from zchunked.events import Planned
from zchunked.layers.assemble import Assembly, check_blob
from zchunked.layers.index_frames import index_blob
from zchunked.layers.proof import Proof, prove, tar_of_blob
from zchunked.layers.rebuild import Rebuild, judged
from zchunked.layers.stand_ins import frame_rows
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.options import Options
from zchunked.pull.estimates import LinkConditions, estimate
from zchunked.pull.inspect import NO_RANGES, LayerMetadata, MetadataFetcher, table_rank
from zchunked.pull.layer import LayerTask
from zchunked.pull.offline import refuse_missing
from zchunked.pull.planner import Scheduler
from zchunked.receipt import Receipt

_REPLAN_SECONDS = 0.5
_FAST_RATE = 20e6  # bytes per second; above that a tar is made more slowly than the blob comes
_SOON_SECONDS = 1.0


class Layers:
    """For one pull. Its methods run on the thread that waits for the crew, which calls `tick` meanwhile."""

    def __init__(
        self,
        session: Session,
        inspector: MetadataFetcher,
        receipt: Receipt,
        options: Options,
        *,
        means: Callable[[], LinkConditions],
        planned: Callable[[], None],
    ) -> None:
        """`means`: what there is to plan with, as of now. `planned` is called when a layer got its plan."""
        self._session, self._inspector, self._receipt, self._options = session, inspector, receipt, options
        self._means, self._planned = means, planned
        self._store, self._fetcher = inspector.store, inspector.fetcher
        self._arrivals = self._fetcher.arrivals
        self._insights: dict[Digest, LayerMetadata] = {}
        self._is_indexed = True
        self._is_plan = False
        if not self._must_know_all():
            self._inspector = replace(
                inspector,
                early_runs=lambda layer, left: self.scheduler.early_runs(
                    left, means(), means().spans_per_request(layer)
                ),
                is_indexed=lambda: self._is_indexed,
                is_coming=self._is_coming,
            )
        self._looked = session.clock()
        self.scheduler = self._new_scheduler()

    def _new_scheduler(self) -> Scheduler:
        options = self._options
        is_for_bytes = bool(options.seeds) or options.offline
        return Scheduler(self._store, options.frugality, may_take_chunks=is_for_bytes, is_plan=self._is_plan)

    def _is_coming(self, chunk: bytes) -> bool:
        return self.scheduler.is_coming(chunk)  # each round has a scheduler of its own

    def look_into(self, crew: WorkerPool, layers: Iterable[Descriptor]) -> None:
        """Have workers look into those that nobody has looked into yet."""
        layers = [layer for layer in layers if layer.digest not in self._insights]
        if layers and not self._insights:
            self._prepare_store(crew)
        for layer in layers:
            if layer.digest not in self._insights:
                insight = self._insights[layer.digest] = LayerMetadata()
                crew.submit("fetch", partial(self._inspector.look_into, layer, insight, crew))

    def _prepare_store(self, crew: WorkerPool) -> None:
        """Have the frames of blobs entered that nobody has asked for so far."""
        if not self._store.frames.holds_any():
            if self._may_skip():
                self._inspector = replace(self._inspector, is_idle=self._is_idle)
            return
        waiting = self._store.frames.unindexed()
        if not waiting:
            return
        self._is_indexed = False

        def work() -> None:
            for blob, manifest in waiting:
                index_blob(self._store, Digest(blob), Digest(manifest), self._options.limits)
            self._is_indexed = True

        crew.submit("read", work)  # before the TOCs of this pull: two in memory at once are too many

    def _may_skip(self) -> bool:
        """Whether a store without frames leaves no question that a table of contents could answer."""
        options = self._options
        counts_bytes = options.frugality.is_metered or bool(options.seeds) or options.max_bytes is not None
        return self._inspector.may_take and not counts_bytes

    def _is_idle(self, layer: Descriptor) -> bool:
        """Whether the lean way would save less than anybody notices, or cost more than it saves."""
        rate = self._means().link.rate
        return rate is None or rate > _FAST_RATE or layer.size < rate * _SOON_SECONDS

    def only_plan(self, after: Layers | None = None) -> None:
        """No layer will be brought: so none may come whole while it is looked into. `after`: those that come first."""
        self._inspector = replace(self._inspector, may_take=False, early_runs=None)
        self._is_plan = True
        self.scheduler = after.scheduler if after is not None else self._new_scheduler()

    def is_planned(self, layer: Descriptor) -> bool:
        """Whether those that come first, or this pull, will bring it."""
        return self.scheduler.has_planned(layer.digest)

    def plan(self, crew: WorkerPool, works: list[LayerTask]) -> None:
        """Give each its order, and fetch none of it."""
        self.look_into(crew, [work.layer for work in works])
        self._session.wait()
        self._prepare(crew, works)
        for work in self._in_order(works):
            self._plan(work)

    def bring(self, crew: WorkerPool, works: list[LayerTask]) -> None:
        """One round. A layer is planned when its TOC is read and those before it are planned; then its chunks come.

        Its proof runs beside that, once its tar-split is here. Raises what ends a pull, RefusedError among it; a proof
        that fails is left in its work.
        """
        for work in works:
            work.is_again = work.is_again or work.order is not None
            work.failure = work.proof = work.order = None
        self.scheduler = self._new_scheduler()
        self.look_into(crew, [work.layer for work in works])
        if self._must_know_all():
            self.plan(crew, works)
            self._refuse(works)
        unplanned = deque(self._in_order(works))
        unproved = list(works)

        def go_on() -> None:
            self._session.tick()
            while unplanned and self._is_clear(unplanned[0].layer):
                work = unplanned.popleft()
                self._fetcher.order(crew, work.order or self._plan(work))
                if not unplanned:
                    need = self._fetcher.to_come()
                    self._session.show(Planned(self._receipt.bytes.image, self._receipt.bytes.cached, need))
            for work in [work for work in unproved if work.order and self._insights[work.layer.digest].is_settled]:
                unproved.remove(work)
                crew.submit("prove", partial(self._prove, crew, work))
            if not unplanned and not crew.is_busy("fetch"):
                self._fetcher.enter()  # while the last proofs are at it
            self._replan(crew, works)

        crew.wait(go_on)
        self._fetcher.close()
        for work in works:
            if work.proof is not None:
                self._keep(work, work.proof)

    # ── plans ──

    def _in_order(self, works: list[LayerTask]) -> list[LayerTask]:
        """In which they are planned."""
        return sorted(works, key=lambda work: table_rank(work.layer, self._options.limits))

    def _must_know_all(self) -> bool:
        """Whether no chunk may be asked for before all layers are understood."""
        options = self._options
        return options.offline or options.max_bytes is not None or bool(options.seeds)

    def _is_clear(self, layer: Descriptor) -> bool:
        """Whether enough is known of the layer to plan it."""
        insight = self._insights[layer.digest]
        comes_in_parts = insight.contents is not None and layer.digest not in self._fetcher.without_ranges
        return self._is_indexed and (insight.is_complete or comes_in_parts)

    def _plan(self, work: LayerTask) -> Order:
        insight = self._insights[work.layer.digest]
        coming = insight.on_its_way()
        if not work.is_understood:
            work.understand(insight)
        order = self.scheduler.plan(work, self._means(), coming=coming)
        self._planned()
        return order

    def _replan(self, crew: WorkerPool, works: list[LayerTask]) -> None:
        """Runs that nobody has begun are made anew where the link or the host are not what they were taken for."""
        now = self._session.clock()
        if now - self._looked < _REPLAN_SECONDS:
            return
        self._looked, means = now, self._means()
        for work in works:
            if work.order is not None and (terms := self.scheduler.new_terms(work, means)):
                self._fetcher.replan(crew, work.order, terms.runs)

    def _prepare(self, crew: WorkerPool, works: list[LayerTask]) -> None:
        """What files elsewhere on this machine hold need not come."""
        options = self._options
        if options.seeds and not options.frugality.exact and self._inspector.files is None:
            from zchunked.seeds import import_seeds  # noqa: PLC0415 - only needed with seeds

            for work in works:
                if not work.is_understood:
                    work.understand(self._insights[work.layer.digest])
            layers = [work.contents for work in works if work.contents and work.contents.tarsplit]
            stop, emit, tick = self._session.stop, self._session.emit, self._session.tick
            import_seeds(options.seeds, layers, self._store, crew, stop=stop, emit=emit, tick=tick)

    def _refuse(self, works: list[LayerTask]) -> None:
        """Raise RefusedError if the plan is more than is allowed."""
        if self._options.offline:
            refuse_missing(self._receipt.reference, works, self._store)
        most = self._options.max_bytes
        spent, traffic = self._receipt.bytes, self._session.traffic
        cost = estimate(works, self._means(), first_bytes=traffic.fetched, first_requests=traffic.requests)
        if most is not None and cost.bytes > most:
            raise RefusedError(
                f"the pull would fetch {cost.bytes} bytes in {cost.requests} requests, --max-bytes allows {most}; "
                f"{spent.cached} of {spent.image} bytes are here"
            )
        if most is not None:
            traffic.allow(most)  # an estimate has been kept; from here on it is a promise

    # ── proofs ──

    def _prove(self, crew: WorkerPool, work: LayerTask) -> None:
        try:
            if work.layer.digest in self._fetcher.without_ranges and work.way != "whole":
                work.come_whole(NO_RANGES)  # found out on the way
            work.proof = self._prove_lean(crew, work) if work.is_lean else self._prove_blob(crew, work)
        except (IntegrityError, FormatError) as error:
            work.failure = error

    def _prove_blob(self, crew: WorkerPool, work: LayerTask) -> Proof:
        """By its own digest; by the diff ID too where that was asked for."""
        assembly = Assembly(self._store, work.layer, work.stand_ins, self._arrivals.wait_for)
        with closing(crew.ahead("make", assembly.blocks())) as blocks:  # or its maker would wait for one who has gone
            check_blob(blocks, work.layer)
        size = None
        if self._options.prove:
            tar = tar_of_blob(assembly.blocks(), work.layer, self._options.limits)
            tar = self._inspector.budget.counted(work.layer.digest, tar)
            with closing(crew.ahead("make", tar)) as made:
                size = prove(made, work.layer, work.diff_id)
        return Proof(is_blob=True, tar_size=size, shared=tuple(assembly.shared()))

    def _prove_lean(self, crew: WorkerPool, work: LayerTask) -> Proof:
        """By the tar that its chunks make, held against the diff ID."""
        contents = work.parts
        assert contents is not None
        limits, arrived = self._options.limits, self._arrivals.wait_for
        blocks = Rebuild(self._store, contents, work.places, arrived, limits).blocks()
        with closing(crew.ahead("make", blocks)) as made:
            tar = self._inspector.budget.counted(work.layer.digest, judged(made))
            return Proof(is_blob=False, tar_size=prove(tar, work.layer, work.diff_id))

    def _keep(self, work: LayerTask, proof: Proof) -> None:
        """Rows that speak of the layer as a whole come last: their bytes are on the disk by now."""
        layer = work.layer
        blobs: set[Digest] = set()
        if proof.is_blob:
            if not self._store.share_extents(layer.digest, layer.size, list(proof.shared)):
                work.proof = None
                work.failure = IntegrityError(f"layer {layer.digest}: another process dropped frames that it shares")
                return
            self._store.set_whole(layer.digest, layer.size)
            if work.frames is not None and work.way == "exact":
                payloads, headers = frame_rows(work.frames, work.known)
                self._store.frames.add(layer.digest, layer.size, payloads, headers)
        else:
            blobs = {layer.digest, *(place.blob for place in work.places.values())}
        if proof.tar_size is not None:
            self._store.add_proof(layer.digest, work.diff_id, proof.tar_size, blobs)
