"""The layers that a pull lacks: looked into, planned, fetched and proved, all four at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial

from zchunked.download.downloader import Downloader
from zchunked.download.orders import Order
from zchunked.download.watermarks import Watermarks
from zchunked.download.workers import WorkerPool
from zchunked.errors import FormatError, IntegrityError, RefusedError
from zchunked.events import Planned
from zchunked.export.tee import ExportTee
from zchunked.interfaces import Emit
from zchunked.layers.proof import Proof, prove, whole_tar
from zchunked.layers.rebuild import Block, Rebuild, judged
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.options import Options
from zchunked.pull.inspect import NO_RANGES, LayerMetadata, MetadataFetcher, table_rank
from zchunked.pull.offline import refuse_missing
from zchunked.pull.planner import LayerTask, LinkConditions, Scheduler, estimate
from zchunked.receipt import Receipt
from zchunked.sources.traffic import Traffic
from zchunked.store import Store

_REPLAN_SECONDS = 2.0


class Layers:
    """For one pull. Its methods run on the thread that waits for the crew, which calls `tick` meanwhile."""

    def __init__(
        self,
        name: str,
        store: Store,
        fetcher: Downloader,
        arrivals: Watermarks,
        inspector: MetadataFetcher,
        *,
        options: Options,
        means: Callable[[], LinkConditions],
        traffic: Traffic,
        receipt: Receipt,
        show: Emit,
        emit: Emit,
        tick: Callable[[], None],
        planned: Callable[[], None],
        clock: Callable[[], float],
        aside: ExportTee | None = None,
    ) -> None:
        """`means`: what there is to plan with, as of now. `show` is for this thread, `emit` for any.

        `planned` is called when a layer got its plan. `aside` takes tars that were made of parts as they are proved.
        """
        self._name, self._planned, self._aside = name, planned, aside
        self._store, self._fetcher, self._arrivals, self._inspector = store, fetcher, arrivals, inspector
        self._options, self._means, self._traffic, self._receipt = options, means, traffic, receipt
        self._show, self._emit, self._tick, self._clock = show, emit, tick, clock
        self._insights: dict[Digest, LayerMetadata] = {}
        self._looked = clock()
        self._scheduler = Scheduler(store, options.frugality)

    def look_into(self, crew: WorkerPool, layers: Iterable[Descriptor]) -> None:
        """Have workers look into those that nobody has looked into yet."""
        for layer in layers:
            if layer.digest not in self._insights:
                insight = self._insights[layer.digest] = LayerMetadata()
                crew.submit("fetch", partial(self._inspector.look_into, layer, insight, crew))

    def only_plan(self) -> None:
        """No layer will be brought: so none may come whole while it is looked into."""
        self._inspector = replace(self._inspector, may_take=False)

    def plan(self, crew: WorkerPool, works: list[LayerTask]) -> None:
        """Give each its order, and fetch none of it."""
        self.look_into(crew, [work.layer for work in works])
        crew.wait(self._tick)
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
        self._scheduler = Scheduler(self._store, self._options.frugality)
        self.look_into(crew, [work.layer for work in works])
        if self._must_know_all():
            self.plan(crew, works)
            self._refuse(works)
        unplanned = deque(self._in_order(works))
        unproved = list(works)

        def go_on() -> None:
            self._tick()
            while unplanned and self._is_clear(unplanned[0].layer):
                work = unplanned.popleft()
                self._fetcher.order(crew, work.order or self._plan(work))
                if not unplanned:
                    need = self._fetcher.to_come()
                    self._show(Planned(self._receipt.bytes.image, self._receipt.bytes.cached, need))
            for work in [work for work in unproved if work.order and self._insights[work.layer.digest].is_complete]:
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
        return insight.is_complete or comes_in_parts

    def _plan(self, work: LayerTask) -> Order:
        insight = self._insights[work.layer.digest]
        on_its_way = not insight.is_complete
        if not work.is_understood:
            work.understand(insight)
        order = self._scheduler.plan(work, self._means(), on_its_way=on_its_way)
        self._planned()
        return order

    def _replan(self, crew: WorkerPool, works: list[LayerTask]) -> None:
        """Runs that nobody has begun are made anew where the link or the host are not what they were taken for."""
        now = self._clock()
        if now - self._looked < _REPLAN_SECONDS:
            return
        self._looked, means = now, self._means()
        for work in works:
            if work.order is not None and (terms := self._scheduler.new_terms(work, means)):
                self._fetcher.replan(crew, work.order, terms.runs)

    def _prepare(self, crew: WorkerPool, works: list[LayerTask]) -> None:
        """What files elsewhere on this machine hold need not come."""
        options = self._options
        if options.seeds and not options.frugality.exact and self._inspector.files is None:
            from zchunked.seeds import sow  # noqa: PLC0415 - who has no seeds need not load what reads them

            for work in works:
                if not work.is_understood:
                    work.understand(self._insights[work.layer.digest])
            layers = [work.parts for work in works if work.parts]
            stop, emit, tick = self._inspector.stop, self._emit, self._tick
            sow(options.seeds, layers, self._store, crew, stop=stop, emit=emit, tick=tick)

    def _refuse(self, works: list[LayerTask]) -> None:
        """Raise RefusedError if the plan is more than is allowed."""
        if self._options.offline:
            refuse_missing(self._name, works, self._store)
        most = self._options.max_bytes
        spent, traffic = self._receipt.bytes, self._traffic
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
        limits = self._options.limits
        try:
            is_whole = work.parts is None or work.layer.digest in self._fetcher.without_ranges
            if is_whole and work.parts is not None:
                work.come_whole(NO_RANGES)  # found out on the way
            blocks: Iterator[Block]
            if work.parts is None:
                blocks = ((data, []) for data in whole_tar(self._store, work.layer, self._arrivals.wait_for, limits))
            else:
                blocks = Rebuild(self._store, work.parts, work.places, self._arrivals.wait_for, limits).blocks()
            with (
                closing(crew.ahead("make", blocks)) as made,  # or its maker would wait for a judge who has gone
                self._set_aside(work, judged(made)) as tar,
            ):
                work.proof = prove(tar, work.layer, work.diff_id, is_whole=is_whole)
        except (IntegrityError, FormatError) as error:
            work.failure = error

    def _set_aside(self, work: LayerTask, tar: Iterator[bytes]) -> AbstractContextManager[Iterator[bytes]]:
        if self._aside is None or work.parts is None:  # an export copies the blobs of whole layers
            return nullcontext(tar)
        return self._aside.passing(work.diff_id, sum(work.parts.toc.sizes), tar)

    def _keep(self, work: LayerTask, proof: Proof) -> None:
        """Rows that speak of the layer as a whole come last: their bytes are on the disk by now."""
        layer = work.layer
        if proof.is_whole:
            self._store.set_whole(layer.digest, layer.size)
            if work.contents is not None:
                contents, toc = work.contents, work.contents.toc
                chunks = (
                    (digest, toc.starts[chunk], contents.length(chunk), toc.chunk_sizes[chunk])
                    for digest, chunk in sorted(contents.own_chunks().items())
                )
                self._store.add_chunks(layer.digest, layer.size, chunks)
        blobs = set() if proof.is_whole else {layer.digest, *(place.blob for place in work.places.values())}
        self._store.add_proof(layer.digest, work.diff_id, proof.tar_size, blobs)
