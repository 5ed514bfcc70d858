"""Plan, fetch and prove the layers that a pull lacks, all of it at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from zchunked.events import Planned
from zchunked.oci.documents import Descriptor
from zchunked.pull.layer import LayerTask, tasks_of
from zchunked.pull.layer_prover import LayerProver
from zchunked.pull.metadata.inspect import inspector_of, toc_rank
from zchunked.pull.metadata.layer_metadata import LayerMetadata
from zchunked.pull.planning.costs import record_estimate, refuse_plan
from zchunked.pull.planning.planner import Planner
from zchunked.pull.planning.stored_frames import StoredFrames
from zchunked.pull.seeding import take_seeds
from zchunked.pull.session import PullSession
from zchunked.store.images import ImageDocuments, StoredImage

_REPLAN_SECONDS = 0.5
_FAST_RATE = 20e6  # bytes per second; above that a tar is made more slowly than the blob arrives
_SOON_SECONDS = 1.0


class Layers:
    """The layers of one pull; for the thread that waits for the workers and calls `tick`."""

    def __init__(self, session: PullSession) -> None:
        self._options = session.options
        self._session, self._store = session, session.store
        self._downloader = session.downloader
        self._prover = LayerProver(session)
        self._budget = self._prover.budget
        self._documents: ImageDocuments | None = None
        self._metadata: dict[str, LayerMetadata] = {}  # by the blob's digest
        self._stored = StoredFrames(session)
        self._reconsidered: list[LayerTask] = []  # each once
        self._read_late: list[LayerTask] = []  # those of them that may still take parts
        self._is_plan = False
        self._is_first = True  # of several that are planned: the store holds what it holds now
        self._inspector = inspector_of(session, self._budget, self._stored, self._is_planned)
        if self._must_know_all():
            self._read_tables(early=None)
        self._replanned = session.clock()
        self.planner = self._new_planner()

    def _new_planner(self) -> Planner:
        options = self._options
        is_for_bytes = bool(options.seeds) or options.offline
        return Planner(
            self._store,
            options.gaps,
            self._stored,
            may_take_chunks=is_for_bytes,
            is_plan=self._is_plan,
        )

    def _read_tables(self, **change: Any) -> None:
        """Change the settings of `TocFetcher`."""
        self._inspector = replace(self._inspector, tables=replace(self._inspector.tables, **change))

    def begin(self, documents: ImageDocuments) -> None:
        """Set the image whose layers they are."""
        layers, store = documents.manifest.layers, self._store
        self._budget.blob_bytes = sum(layer.size for layer in layers)
        self._stored.expect(
            layer
            for layer in layers
            if not (store.is_whole(layer.digest) or store.is_proved(layer.digest))
        )
        self._documents = documents

    def tasks(self, image: StoredImage) -> list[LayerTask]:
        """One for each distinct layer of the image, which is on the receipt."""
        if self._documents is None:
            self.begin(image.documents)
        entries, arrivals = self._session.receipt.layers, self._downloader.arrivals
        return tasks_of(image.documents.manifest.layers, image.config.diff_ids, entries, arrivals)

    def _is_planned(self, chunk: bytes) -> bool:
        return self.planner.is_planned(chunk)  # each round has a planner of its own

    # ── tables of contents ──

    def inspect(self, layers: Iterable[Descriptor]) -> None:
        """Have workers fetch the metadata of the layers that were not inspected yet."""
        layers = [layer for layer in layers if layer.digest not in self._metadata]
        if layers and not self._metadata:
            self._prepare_store()
        pool = self._session.pool
        for layer in layers:
            if layer.digest not in self._metadata:
                metadata = self._metadata[layer.digest] = LayerMetadata()
                pool.submit("fetch", partial(self._inspector.inspect, layer, metadata))

    def _prepare_store(self) -> None:
        """Have the tables of stored blobs read, where the pull may ask for their frames."""
        may_skip = self._may_skip() and not self._is_plan
        if not self._store.frames.holds_any():
            if may_skip:
                self._inspector = replace(self._inspector, needs_no_toc=self._needs_no_toc)
            return
        # where it takes no turns its clients do not wait for a hundred tables either
        is_promised = self._options.gaps.exact and self._options.takes_turns
        may_wait = may_skip and not self._options.gaps.exact
        as_rows = self._options.gaps.is_metered or bool(self._options.seeds)
        self._stored.prepare(may_wait=may_wait, as_rows=as_rows, is_promised=is_promised)
        if may_wait:
            self._read_tables(skip=self._stored.skip)

    def _may_skip(self) -> bool:
        """Whether a layer may come whole, to save time, without reading its TOC."""
        options = self._options
        counts_bytes = options.gaps.is_metered or options.max_bytes is not None
        return not (counts_bytes or options.seeds or options.offline)

    def _is_unread(self, task: LayerTask) -> bool:
        """Whether a pull would not have read the TOC that was read to plan it."""
        if not (self._is_plan and self._may_skip() and task.index is not None):
            return False
        if self._is_first and not self._store.frames.holds_any():
            return self._needs_no_toc(task.layer)
        return not self._stored.is_worth_reading(task.layer, task.index.location.toc.span.size)

    def _needs_no_toc(self, layer: Descriptor) -> bool:
        """Whether the lean way would save next to nothing, or cost more than it saves."""
        rate = self._session.conditions.now().link.rate
        return rate is None or rate > _FAST_RATE or layer.size < rate * _SOON_SECONDS

    # ── plans ──

    def only_plan(self, after: Layers | None = None) -> None:
        """Plan, but fetch no layer, so that none is fetched whole when inspected.

        `after`: the layers of pulls that come first.
        """
        self._inspector = replace(self._inspector, may_take=False)
        self._read_tables(early=None)
        self._is_plan, self._is_first = True, after is None
        self.planner = after.planner if after is not None else self._new_planner()
        self.planner.begin_image(self._stored)

    def plan_image(self, tasks: list[LayerTask], cost_again: int) -> list[LayerTask]:
        """Plan each layer that is not stored, and put what that will cost on the receipt.

        `cost_again`: bytes of the manifest that the pull asks for too. Returns those layers.
        """
        planned = {task.layer.digest for task in tasks if self._has_plan(task.layer)}
        todo = []
        for task in tasks:
            if task.layer.digest in planned:
                task.entry.mode, task.entry.cached_bytes = "cached", task.layer.size
            elif not self._session.is_proved(task.layer, task.diff_id):
                todo.append(task)
        self._plan_all(todo)
        record_estimate(self._session, todo, cost_again, self._stored.toc_bytes)
        return todo

    def _has_plan(self, layer: Descriptor) -> bool:
        """Whether an earlier pull, or this one, will fetch it."""
        return self.planner.has_planned(layer.digest)

    def _plan_all(self, tasks: list[LayerTask]) -> None:
        """Plan all of them, and fetch nothing."""
        self.inspect([task.layer for task in tasks])
        self._session.wait()
        self._import_seeds(tasks)
        for task in self._in_order(tasks):
            self._plan(task)

    def _in_order(self, tasks: list[LayerTask]) -> list[LayerTask]:
        """The layers in the order in which they are planned."""
        return sorted(tasks, key=lambda task: toc_rank(task.layer, self._options.limits))

    def _must_know_all(self) -> bool:
        """Whether no chunk may be asked for before all layers are understood."""
        options = self._options
        return options.offline or options.max_bytes is not None or bool(options.seeds)

    def _is_clear(self, task: LayerTask) -> bool:
        """Whether enough is known of the layer to plan it."""
        metadata = self._metadata[task.layer.digest]
        if metadata.index is None:
            return metadata.is_complete
        comes_whole = task.arrival.claim.was_made
        return self._stored.are_known and (metadata.is_complete or not comes_whole)

    def _plan(self, task: LayerTask) -> None:
        metadata = self._metadata[task.layer.digest]
        in_flight = metadata.in_flight_spans()
        if not task.is_understood:
            metadata.describe(task)
        conditions, is_unread = self._session.conditions.now(), self._is_unread(task)
        self.planner.plan(task, conditions, in_flight=in_flight, is_unread=is_unread)
        self._session.count_cached()

    def _replan(self, tasks: list[LayerTask]) -> None:
        """Make the runs anew that no worker has begun, where link or host have changed."""
        now = self._session.clock()
        if now - self._replanned < _REPLAN_SECONDS:
            return
        self._replanned, conditions = now, self._session.conditions.now()
        pool = self._session.pool
        for task in tasks:
            if task.plan is None:
                continue
            if shape := self.planner.new_shape(task, conditions):
                self._downloader.replan(pool, task.plan, shape.runs)
            elif task in self._read_late and task.known is not None:
                self._read_late.remove(task)
                self._downloader.replan(
                    pool, task.plan, partial(self.planner.take_parts, task, conditions)
                )
            elif (
                task not in self._reconsidered
                and self.planner.is_too_slow(task, conditions)
                and self._stored.is_worth_reading_late(
                    task.layer, [other.layer for other in tasks if other.way == "whole"]
                )
            ):
                self._reconsidered.append(task)
                self._read_late.append(task)
                self._stored.read_late(task, self.planner.look_up)

    def _import_seeds(self, tasks: list[LayerTask]) -> None:
        """Take chunks from files elsewhere on this machine: these need not be fetched."""
        options = self._options
        if not options.seeds or options.gaps.exact or self._session.origin.files is not None:
            return
        for task in tasks:
            if not task.is_understood:
                self._metadata[task.layer.digest].describe(task)
        take_seeds(self._session, tasks)

    # ── one round ──

    def fetch(self, tasks: list[LayerTask]) -> None:
        """Fetch and prove these layers, once each.

        A layer is planned when its TOC is read and those before it are planned; then its chunks are
        fetched. Its proof runs beside that, once its tar-split is here. Raises what ends a pull,
        RefusedError among it; a proof that fails is left in its task.
        """
        for task in tasks:
            task.is_again = task.is_again or task.plan is not None
            task.failure = task.proof = task.plan = None
            if task.is_again:
                self._session.partial_blobs.restart(task.layer.digest)
        self.planner = self._new_planner()
        self.inspect([task.layer for task in tasks])
        if self._must_know_all():
            self._plan_all(tasks)
            refuse_plan(self._session, tasks)
        unplanned, unproved = deque(self._in_order(tasks)), list(tasks)

        def advance() -> None:
            self._session.tick()
            self._submit_planned(unplanned)
            self._prove(unproved)
            if not unplanned and not self._session.pool.is_busy("fetch"):
                self._downloader.record_chunks()  # while the last proofs run
            self._replan(tasks)
            if not unplanned:
                self._stored.record_while(self._seconds_left())

        self._session.pool.wait(advance)
        self._downloader.close()
        for task in tasks:
            if task.proof is not None:
                assert self._documents is not None  # nothing is fetched before `begin`
                self._prover.record(task, task.proof, self._documents.manifest_digest)

    def _submit_planned(self, unplanned: deque[LayerTask]) -> None:
        """Plan the next layers of which enough is known, and queue their runs."""
        pool, spent = self._session.pool, self._session.receipt.bytes
        while unplanned and self._is_clear(unplanned[0]):
            task = unplanned.popleft()
            if task.plan is None:
                self._plan(task)
            assert task.plan is not None
            self._downloader.submit(pool, task.plan)
            if not unplanned:
                need = self._downloader.bytes_left()
                self._session.show(Planned(spent.image, spent.cached, need))

    def _seconds_left(self) -> float:
        rate = self._session.conditions.now().link.rate
        return self._downloader.bytes_left() / rate if rate else 0.0

    def _prove(self, unproved: list[LayerTask]) -> None:
        """Have the layers proved whose requests are all planned."""
        for task in list(unproved):
            if task.plan is not None and self._metadata[task.layer.digest].is_settled:
                unproved.remove(task)
                self._session.pool.submit("prove", partial(self._prover.prove, task))
