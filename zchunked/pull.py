"""A pull, the whole story: documents, tables of contents, a schedule, the download beside its proofs, the image."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from zchunked.arrivals import Arrivals
from zchunked.crew import Crew
from zchunked.digest import Digest, short
from zchunked.errors import (
    FormatError,
    IntegrityError,
    InterruptedPullError,
    RefusedError,
)
from zchunked.events import Event, Noted, Planned
from zchunked.fetch import Fetcher, Order
from zchunked.heal import heal
from zchunked.image import ImageDocuments, StoredImage, resolve
from zchunked.insight import Insight, Inspector
from zchunked.layer.locate import kind_of
from zchunked.layer.plan import Link, missing
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci import Descriptor, Platform, parse_config
from zchunked.offline import refuse_missing
from zchunked.pace import Bounds, Pace
from zchunked.prove import Proof, prove, whole_tar
from zchunked.ranges import ByteRange, total
from zchunked.reassemble import Rebuild
from zchunked.receipt import Accounts, Receipt
from zchunked.retry import Chameleon, Patience, RetryingSource
from zchunked.schedule import Frugality, Means, Work, estimate, schedule
from zchunked.seams import Document, Emit, Files, Source
from zchunked.store import Store
from zchunked.traffic import Traffic
from zchunked.verify import doubt

_PROVERS = 2
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Options:
    """How to pull. `max_bytes`: refuse a plan above it; `rate`: bytes per second to reckon with, else as measured.

    `seeds`: places on this machine whose files may stand in for chunks. `offline`: refuse a plan that lacks a byte.
    """

    platform: Platform
    jobs: int = 8
    patience: Patience = field(default_factory=Patience)
    bounds: Bounds = field(default_factory=Bounds)
    frugality: Frugality = field(default_factory=Frugality)
    max_bytes: int | None = None
    rate: float | None = None
    seeds: tuple[Path, ...] = ()
    offline: bool = False
    limits: Limits = DEFAULT_LIMITS


class Pull:
    """One pull of one image into the store. `run` once, on the caller's thread, which also gets all events."""

    def __init__(
        self,
        name: str,
        digest: Digest | None,
        source: Source,
        store: Store,
        *,
        traffic: Traffic,
        options: Options,
        receipt: Receipt,
        show: Emit,
        clock: Callable[[], float] = time.monotonic,
        accounts: Accounts | None = None,
        files: Files | None = None,
    ) -> None:
        """`files`: the source's blobs, where they are files of this machine: then nothing is fetched."""
        self._name, self._digest, self._store, self._options = name, digest, store, options
        self._traffic, self._receipt, self._show, self._clock = traffic, receipt, show, clock
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._plain_source = source
        self._chameleon = Chameleon(options.patience, options.jobs, self._events.put, self._stop, clock=clock)
        self._source = RetryingSource(source, self._chameleon)
        self._accounts = accounts or Accounts(is_free=files is not None)
        self._files, self._is_plan = files, False
        self._arrivals = Arrivals(self._stop)
        self._fetcher = Fetcher(
            self._source,
            store,
            arrivals=self._arrivals,
            accounts=self._accounts,
            emit=self._events.put,
            stop=self._stop,
        )
        self._began = clock()
        self._pace = Pace(options.bounds, traffic, self._chameleon, clock)
        self._config_bytes_here = 0
        self._documents_size: dict[Digest | None, int] = {}
        self._cost_again = 0
        self._insights: dict[Digest, Insight] = {}
        self.bytes_here = 0
        """After `run`: how much of the image's listed bytes is in the store."""

    def run(self) -> StoredImage:
        """Raises one ZPullError; whatever arrived stays. The receipt is true afterwards, also of a pull that failed."""
        return self._with_crew(self._pull)

    def heal(self, image: StoredImage) -> StoredImage:
        """Bring again what the disk has spoilt of what this pull brought; on the same receipt. Raises as `run` does."""
        doubt(self._store, image.documents.manifest.layers)
        again = Pull(
            self._name,
            image.documents.root,
            self._plain_source,
            self._store,
            traffic=self._traffic,
            options=self._options,
            receipt=self._receipt,
            show=self._show,
            clock=self._clock,
            accounts=self._accounts,
            files=self._files,
        )
        try:
            return again.run()
        finally:
            self.bytes_here = again.bytes_here

    def plan(self) -> list[Work]:
        """Fetch no more than manifests and tables of contents, and put an estimate of the rest on the receipt.

        Returns the layers that are not here yet, each with its order. Raises as `run` does.
        """
        self._is_plan = True
        return self._with_crew(self._plan)

    def _with_crew(self, work: Callable[[Crew], _Result]) -> _Result:
        crew = self._crew = Crew({"fetch": self._options.jobs, "make": _PROVERS, "prove": _PROVERS}, self._stop)
        try:
            with crew:
                try:
                    return work(crew)
                finally:
                    self._stop.set()
                    self._arrivals.wake()
        except KeyboardInterrupt as error:
            raise InterruptedPullError("interrupted") from error
        finally:
            self._stop.set()
            self._tick()
            try:
                if crew.is_gone:  # else a hanging worker still has its writer; what it wrote is safe without us
                    self._fetcher.close()
            finally:
                self._settle()

    def _settle(self) -> None:
        self._fetcher.settle()
        self._count_cached()
        self._receipt.settle(self._traffic, self._accounts)
        self._receipt.retries += self._chameleon.retries
        self._receipt.seconds = round(self._receipt.seconds + self._clock() - self._began, 3)
        spent = self._receipt.bytes
        came = spent.needed + spent.metadata - self._accounts.documents
        self.bytes_here = min(spent.cached + came, spent.image)

    def _pull(self, crew: Crew) -> StoredImage:
        image, works = self._open(crew)
        for is_last in (False, False, True):
            # Damage that is found in the store may also undo what was proved before, so look again.
            todo = [work for work in works if not self._is_proved(work)]
            if not todo:
                break
            self._schedule(crew, todo)
            if self._options.offline:
                refuse_missing(self._name, todo, self._store)
            self._refuse_excess(todo)
            self._download(crew, todo)
            for work in heal(todo, self._store, self._fetcher, self._accounts, is_last=is_last):
                self._show(Noted(f"layer {short(work.layer.digest)}: damaged bytes dropped, fetching them again"))
        documents = image.documents
        self._store.set_image(self._name, str(image.config.platform), documents.manifest_digest, documents.root)
        return image

    def _plan(self, crew: Crew) -> list[Work]:
        _, works = self._open(crew)
        todo = [work for work in works if not self._is_proved(work)]
        self._schedule(crew, todo)
        again, asked = self._cost_again, int(not self._digest)
        self._receipt.estimate = estimate(todo, self._means(), first_bytes=again, first_requests=asked)
        return todo

    def _is_proved(self, work: Work) -> bool:
        """Proved, and whole where that was asked for."""
        if self._options.frugality.exact and not self._store.is_whole(work.layer.digest):
            return False
        return self._store.proof(work.layer.digest, work.diff_id) is not None

    def _means(self) -> Means:
        link = Link(self._traffic.round_trip, self._options.rate or self._traffic.rate)
        return Means(self._options.jobs, link, self._source.spans_per_request, self._accounts.is_free)

    def _refuse_excess(self, works: list[Work]) -> None:
        most = self._options.max_bytes
        cost = estimate(works, self._means(), first_bytes=self._traffic.fetched, first_requests=self._traffic.requests)
        if most is not None and cost.bytes > most:
            raise RefusedError(
                f"the pull would fetch {cost.bytes} bytes in {cost.requests} requests, --max-bytes allows {most}; "
                f"{self._receipt.bytes.cached} of {self._receipt.bytes.image} bytes are here"
            )

    def _tick(self) -> None:
        while not self._events.empty():
            self._show(self._events.get())
        if not self._stop.is_set():
            self._fetcher.commit_early()
            self._pace.check(is_fetching=self._crew.is_busy("fetch"))

    # ── what the image is ──

    def _open(self, crew: Crew) -> tuple[StoredImage, list[Work]]:
        """Everything up to the plan: manifest, then config and tables of contents at the same time."""
        found: list[ImageDocuments] = []
        crew.submit("fetch", lambda: found.append(self._documents()))
        crew.wait(self._tick)
        documents, manifest = found[0], found[0].manifest
        configs: list[bytes] = []
        crew.submit("fetch", lambda: configs.append(self._config(manifest.config)))
        if not self._store.covers(manifest.config.digest, ByteRange(0, max(manifest.config.size, 1))):
            for layer in {layer.digest: layer for layer in manifest.layers}.values():
                if not self._store.is_proved(layer.digest):
                    crew.submit("fetch", lambda layer=layer: self._look_into(crew, layer))  # type: ignore[misc]
        crew.wait(self._tick)
        config = parse_config(configs[0], len(manifest.layers), limits=self._options.limits)
        self._receipt.platform = str(config.platform)
        self._receipt.list_layers(manifest, config.diff_ids, [kind_of(layer) for layer in manifest.layers])
        works: dict[tuple[Digest, Digest], Work] = {}
        for layer, diff_id, entry in zip(manifest.layers, config.diff_ids, self._receipt.layers, strict=True):
            work = Work(layer, diff_id, entry)
            if self._is_proved(work):
                entry.mode, entry.cached_bytes = "cached", layer.size
            elif (layer.digest, diff_id) in works:
                entry.mode = "cached"  # the same layer again
            works.setdefault((layer.digest, diff_id), work)
        self._count_cached()
        return StoredImage(self._name, documents, configs[0], config), list(works.values())

    def _documents(self) -> ImageDocuments:
        limits = self._options.limits

        def fetch(digest: Digest | None) -> Document:
            self._accounts.document(-self._documents_size.get(digest, 0))
            if digest in self._documents_size:
                self._source.distrust(digest)
            document = self._source.manifest(digest)
            self._documents_size[digest] = document.cost
            self._accounts.document(document.cost)
            if digest is None:
                self._cost_again = document.cost_again
            return document

        documents = resolve(self._digest, self._options.platform, self._store, fetch, limits)
        self._receipt.manifest_digest = documents.manifest_digest
        return documents

    def _config(self, config: Descriptor) -> bytes:
        whole = [ByteRange(0, config.size)] if config.size else []
        data = self._store.get(config.digest, config.size)
        self._config_bytes_here = config.size if data is not None else 0
        for _ in range(2):
            if data is not None:
                return data
            self._accounts.discard(config.digest)
            self._source.distrust(config.digest)
            left = missing(whole, self._store.covered(config.digest))
            self._fetcher.now(Order(config, [(span,) for span in left], whole, whole))
            data = self._store.get(config.digest, config.size)  # drops it if it is not what was promised
        if data is not None:
            return data
        self._accounts.discard(config.digest)
        raise IntegrityError(
            f"the config does not match its digest {config.digest}, twice; the registry's copy is damaged"
        )

    def _count_cached(self) -> None:
        layers = sum(entry.cached_bytes for entry in self._receipt.layers)
        self._receipt.bytes.cached = self._config_bytes_here + layers

    # ── what each layer holds ──

    def _look_into(self, crew: Crew, layer: Descriptor) -> None:
        inspector = Inspector(
            self._store,
            self._fetcher,
            self._accounts,
            self._stop,
            self._options.limits,
            self._files,
            may_take=not self._is_plan,
        )
        self._insights[layer.digest] = inspector.look_into(layer, crew)

    # ── download and proof ──

    def _schedule(self, crew: Crew, works: list[Work]) -> None:
        for layer in {work.layer.digest: work.layer for work in works}.values():
            if layer.digest not in self._insights:
                crew.submit("fetch", lambda layer=layer: self._look_into(crew, layer))  # type: ignore[misc]
        crew.wait(self._tick)
        for work in works:
            if not work.is_understood:
                work.understand(self._insights[work.layer.digest])
        if self._options.seeds and not self._options.frugality.exact and self._files is None:
            self._sow(crew, works)
        schedule(works, self._store, self._options.frugality, self._means())
        self._count_cached()

    def _sow(self, crew: Crew, works: list[Work]) -> None:
        from zchunked.seeds import sow  # noqa: PLC0415 - who has no seeds need not load what reads them

        layers, emit = [work.parts for work in works if work.parts], self._events.put
        sow(self._options.seeds, layers, self._store, crew, stop=self._stop, emit=emit, tick=self._tick)

    def _download(self, crew: Crew, works: list[Work]) -> None:
        need = sum(total(run) for work in works if work.order for run in work.order.runs)
        self._show(Planned(self._receipt.bytes.image, self._receipt.bytes.cached, need))
        for work in works:
            work.failure = work.proof = None
            if work.order is not None:
                self._fetcher.order(crew, work.order)
        for work in works:
            crew.submit("prove", lambda work=work: self._prove(crew, work))  # type: ignore[misc]
        crew.wait(self._tick)
        self._fetcher.close()
        for work in works:
            if work.proof is not None:
                self._keep(work, work.proof)

    def _prove(self, crew: Crew, work: Work) -> None:
        limits = self._options.limits
        try:
            is_whole = work.parts is None or work.layer.digest in self._fetcher.without_ranges
            if work.parts is None or is_whole:
                tar = whole_tar(self._store, work.layer, self._arrivals.wait_for, limits)
            else:
                tar = Rebuild(self._store, work.parts, work.places, self._arrivals.wait_for, limits).tar()
            work.proof = prove(crew.ahead("make", tar), work.layer, work.diff_id, is_whole=is_whole)
        except (IntegrityError, FormatError) as error:
            work.failure = error

    def _keep(self, work: Work, proof: Proof) -> None:
        """Rows that speak of the layer as a whole come last: their bytes are on the disk by now."""
        layer = work.layer
        if proof.is_whole:
            self._store.set_whole(layer.digest, layer.size)
            if work.contents is not None:
                toc = work.contents.toc
                rows = zip(toc.digests, toc.starts, toc.ends, toc.chunk_sizes, toc.holes, strict=True)
                chunks = ((digest, start, end - start, size) for digest, start, end, size, hole in rows if not hole)
                self._store.add_chunks(layer.digest, layer.size, chunks)
        blobs = set() if proof.is_whole else {layer.digest, *(place.blob for place in work.places.values())}
        self._store.add_proof(layer.digest, work.diff_id, proof.tar_size, blobs)
