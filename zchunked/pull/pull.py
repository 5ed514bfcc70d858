"""A pull, the whole story: documents, then the layers that are lacking, what is damaged once more, the image."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from zchunked.download.coalesce import Link, missing
from zchunked.download.downloader import Downloader
from zchunked.download.orders import Order
from zchunked.download.session import Session
from zchunked.download.workers import WorkerPool
from zchunked.errors import AccessDeniedError, IntegrityError, LocalError, NotFoundError, TransferError
from zchunked.events import Noted, Warned
from zchunked.formats.annotations import kind_of
from zchunked.formats.budget import ImageBudget
from zchunked.interfaces import Document, Emit
from zchunked.maintenance.blob_check import reverify
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import Descriptor, parse_config
from zchunked.oci.platform import runs_on
from zchunked.options import Options
from zchunked.pull.estimates import LinkConditions, estimate, ways_of
from zchunked.pull.handover import take_over
from zchunked.pull.inspect import MetadataFetcher
from zchunked.pull.layer import LayerTask
from zchunked.pull.layers import Layers
from zchunked.pull.machine import SUBJECT as MACHINE
from zchunked.pull.machine import costs_of, measured
from zchunked.pull.origin import Origin
from zchunked.pull.repair import heal
from zchunked.pull.resolve import resolve
from zchunked.pull.turns import Turns
from zchunked.ranges import ByteRange, total
from zchunked.receipt import Accounts, Receipt
from zchunked.store import Store
from zchunked.store.images import ImageDocuments, StoredImage

_ROUNDS = 7  # of repairs: each finds other bytes to blame, or trusts fewer frames
_QUICK_RATE = 10e6
"""Bytes per second. Only above it a part has a price: below, the host works while the link is busy, and a link that got
slower would pass for a host that works more."""
_LANES = {"read": 1, "make": 2, "prove": 2}
_Result = TypeVar("_Result")


def _link_of(name: str) -> str:
    """What the link to a reference's host is remembered by."""
    _, slashes, rest = name.partition("://")
    return "link " + (rest if slashes else name).partition("/")[0]


class Pull:
    """One pull of one image into the store. `run` once, on the caller's thread, which also gets all events."""

    def __init__(
        self,
        origin: Origin,
        store: Store,
        options: Options,
        receipt: Receipt,
        show: Emit,
        accounts: Accounts | None = None,
    ) -> None:
        """`accounts`: of an earlier pull that went onto the same receipt."""
        traffic, files = origin.traffic, origin.files
        self._origin, self._name, self._digest = origin, origin.name, origin.root
        self._store, self._options = store, options
        self._traffic, self._receipt, self._show = traffic, receipt, show
        session = self._session = Session(
            traffic, jobs=options.jobs, patience=options.patience, bounds=options.bounds, show=show
        )
        self._source = session.retrying(origin.source)
        self._accounts = accounts or Accounts(is_free=origin.is_local)
        self._files = files
        self._fetcher = Downloader(
            self._source,
            store,
            accounts=self._accounts,
            emit=session.emit,
            stop=session.stop,
            can_drain=lambda: traffic.can_drain,
        )
        session.on_tick, session.on_stop = self._fetcher.commit_early, self._fetcher.arrivals.wake
        self._began, self._cpu = session.clock(), time.process_time()
        self._costs = costs_of(store.measures(MACHINE))
        self._config_bytes_here = 0
        self._documents_size: dict[Digest | None, int] = {}
        self._cost_again = 0
        self._link = store.measures(_link_of(origin.name))  # as earlier pulls found it
        self._begun = 0  # the number of this pull in the store's log of pulls
        self._turns = Turns(store, session.stop, place=traffic.place)
        self._budget = ImageBudget(options.limits)
        inspector = MetadataFetcher(
            store,
            self._fetcher,
            session.stop,
            options.limits,
            self._budget,
            files,
            may_grow=options.max_bytes is None,
            is_thrifty=options.frugality.is_metered,
        )
        self.layers = Layers(session, inspector, receipt, options, means=self._means, planned=self._count_cached)
        self.bytes_here = 0
        """After `run`: how much of the image's listed bytes is in the store."""

    def run(self) -> StoredImage:
        """Raises one ZPullError; whatever arrived stays. The receipt is true afterwards, also of a pull that failed."""
        try:
            return self._with_crew(self._pull)
        finally:
            self._turns.give_back()

    def heal(self, image: StoredImage) -> StoredImage:
        """Bring again what the disk has spoilt of what this pull brought; on the same receipt. Raises as `run` does."""
        reverify(self._store, image.documents.manifest.layers)
        origin = replace(self._origin, digest=image.documents.root)
        again = Pull(origin, self._store, self._options, self._receipt, self._show, self._accounts)
        try:
            return again.run()
        finally:
            self.bytes_here = again.bytes_here

    def plan(self, after: Layers | None = None) -> list[LayerTask]:
        """Fetch no more than manifests and tables of contents, and put an estimate of the rest on the receipt.

        Returns the layers that are not here yet, each with its order. `after`: the `layers` of pulls that were planned
        before, and will have brought them by then. Raises as `run` does.
        """
        self.layers.only_plan(after)
        return self._with_crew(self._plan)

    def _with_crew(self, work: Callable[[WorkerPool], _Result]) -> _Result:
        session = self._session
        try:
            with session.workers(**_LANES, fetch=session.jobs) as crew:
                return work(crew)
        finally:
            try:
                if session.pool.is_gone:
                    self._fetcher.close()
                else:  # a hanging worker still has its writer; what it wrote is safe without us
                    self._fetcher.enter()
            finally:
                self._settle()

    def _say_what_is_proved(self) -> None:
        with suppress(LocalError):  # whatever ended the pull says more
            for entry in self._receipt.layers:
                entry.proved = self._store.proved_by(Digest(entry.digest), Digest(entry.diff_id))
                entry.identical = entry.proved in ("blob", "both")

    def _remember_link(self) -> None:
        traffic = self._traffic
        if self._accounts.is_free or self._options.limit_rate is not None or traffic.place is not None:
            return  # what others leave of the link says little of it
        rate = traffic.plain_rate or traffic.rate
        if traffic.tells_rate and rate and traffic.round_trip is not None:
            found = {"rate": rate, "round trip": traffic.round_trip}
            if traffic.part_seconds is not None:
                found["part"] = traffic.part_seconds
            self._store.remember_measures(_link_of(self._name), found)

    def _settle(self) -> None:
        self._fetcher.settle()
        self._count_cached()
        self._receipt.settle(self._traffic, self._accounts)
        self._receipt.retries += self._session.chameleon.retries
        self._receipt.seconds = round(self._receipt.seconds + self._session.clock() - self._began, 3)
        spent = self._receipt.bytes
        came = spent.needed + spent.metadata - self._accounts.documents
        self.bytes_here = min(spent.cached + came, spent.image)
        self._say_what_is_proved()
        self._remember_link()

    def _pull(self, crew: WorkerPool) -> StoredImage:
        image, works = self._open(crew, begin=True)
        for is_last in (*[False] * _ROUNDS, True):
            # Damage that is found in the store may also undo what was proved before, so look again.
            todo = [work for work in works if not self._is_proved(work)]
            if not todo:
                break
            self.layers.bring(crew, todo)
            for work in heal(todo, self._store, self._fetcher, self._accounts, self._options.limits, is_last=is_last):
                self._show(Noted(f"layer {short(work.layer.digest)}: damaged bytes dropped, fetching them again"))
        documents = image.documents
        came = [work.layer for work in works if work.proof is not None and work.way == "whole"]
        chunked = [layer.digest for layer in came if kind_of(layer) != "plain"]
        spent = time.process_time() - self._cpu
        if self._traffic.place is None and (found := measured(works, spent, self._costs)):
            self._store.remember_measures(MACHINE, found)
        self._store.frames.set_unindexed(chunked, documents.manifest_digest)
        self._store.set_image(self._name, str(image.config.platform), documents.manifest_digest, documents.root)
        self._store.pulls.finish(self._begun, self._name, str(self._options.platform))
        return image

    def _plan(self, crew: WorkerPool) -> list[LayerTask]:
        _, works = self._open(crew)
        todo = [work for work in works if not (self._is_proved(work) or self.layers.is_planned(work.layer))]
        for work in works:
            if self.layers.is_planned(work.layer):
                work.entry.mode, work.entry.cached_bytes = "cached", work.layer.size
        self.layers.plan(crew, todo)
        again, asked = self._cost_again, int(not self._digest)
        cost = self._receipt.estimate = estimate(todo, self._means(), first_bytes=again, first_requests=asked)
        self._receipt.ways = ways_of(todo, self._means(), first_bytes=again, first_requests=asked)
        if cost.bytes and self._options.rate is None and not (self._traffic.tells_rate or "rate" in self._link):
            cost.seconds = None
        return todo

    def _is_proved(self, work: LayerTask) -> bool:
        """By one of its digests; by those that were asked for."""
        is_whole = self._store.is_whole(work.layer.digest)
        is_tar = self._store.proof(work.layer.digest, work.diff_id) is not None
        if self._options.frugality.exact and not is_whole:
            return False
        return is_tar or (is_whole and not self._options.prove)

    def _means(self) -> LinkConditions:
        traffic, before = self._traffic, self._link
        measured = traffic.rate if traffic.tells_rate else before.get("rate", traffic.rate)
        round_trip = traffic.round_trip if traffic.round_trip is not None else before.get("round trip")
        part = traffic.part_seconds
        if part is None:
            part = before.get("part", 0.0)
        elif traffic.plain_rate:  # the rate while parts came is that of the host's work for them
            measured = max(measured or 0.0, traffic.plain_rate)
        if (measured or 0.0) < _QUICK_RATE:
            part = 0.0
        link = Link(round_trip, self._options.link_rate(measured), part)
        return LinkConditions(
            self._options.jobs, link, self._source.spans_per_request, self._accounts.is_free, self._costs
        )

    # ── what the image is ──

    def _open(self, crew: WorkerPool, *, begin: bool = False) -> tuple[StoredImage, list[LayerTask]]:
        """Manifest, then the config; tables of contents are asked for at the same time."""
        found: list[ImageDocuments] = []
        crew.submit("fetch", lambda: found.append(self._documents()))
        self._session.wait()
        documents, manifest = found[0], found[0].manifest
        self._budget.blob_bytes = sum(layer.size for layer in manifest.layers)
        if begin:
            self._begin(documents)
        configs: list[bytes] = []
        unknown: list[Descriptor] = []
        if not self._store.covers(manifest.config.digest, ByteRange(0, max(manifest.config.size, 1))):
            unknown = [
                layer
                for layer in manifest.layers
                if not (self._store.is_whole(layer.digest) or self._store.is_proved(layer.digest))
            ]
        if self._options.jobs > 1:  # else the config would wait for it
            self.layers.look_into(crew, unknown[:1])  # by the connection that is open already
        crew.submit("fetch", lambda: configs.append(self._config(manifest.config)))
        self.layers.look_into(crew, unknown)
        self._session.wait(until=lambda: bool(configs))
        config = parse_config(configs[0], len(manifest.layers), limits=self._options.limits)
        self._receipt.platform = str(config.platform)
        if not runs_on(config.platform, self._options.platform):
            self._warn(
                f"the image is for {config.platform}, not for {self._options.platform} as asked; "
                "no other platform is offered under this name"
            )
        self._receipt.list_layers(manifest, config.diff_ids, [kind_of(layer) for layer in manifest.layers])
        works: dict[tuple[Digest, Digest], LayerTask] = {}
        for layer, diff_id, entry in zip(manifest.layers, config.diff_ids, self._receipt.layers, strict=True):
            work = LayerTask(layer, diff_id, entry)
            if self._is_proved(work):
                entry.mode, entry.cached_bytes = "cached", layer.size
            elif (layer.digest, diff_id) in works:
                entry.mode = "cached"  # the same layer again
            works.setdefault((layer.digest, diff_id), work)
        self._count_cached()
        return StoredImage(self._name, documents, configs[0], config), list(works.values())

    def _warn(self, text: str) -> None:
        if text not in self._receipt.warnings:  # a pull that heals says it again
            self._receipt.warnings.append(text)
            self._session.emit(Warned(text))

    def _begin(self, documents: ImageDocuments) -> None:
        """Let others know what is lacking and who brings it."""
        layers = {layer.digest for layer in documents.manifest.layers}
        lacking = [one for one in layers if not (self._store.is_whole(one) or self._store.is_proved(one))]
        if lacking:
            here = sum(total(self._store.covered(layer)) for layer in layers)
            platform = str(self._options.platform)
            self._begun = self._store.pulls.begin(self._name, platform, documents.manifest_digest, here)
            if self._options.takes_turns and self._files is None and not self._options.offline:
                repository = self._origin.reference.name
                for text in self._turns.take(repository, lacking, self._session.tick, self._begun):
                    self._show(Noted(text))
                take_over(self._store, repository, layers, self._fetch_apart, self._options.limits)

    def _fetch_apart(self, order: Order) -> None:
        """What this pull can do without: a failure is none of its own."""

        def fetch() -> None:
            with suppress(TransferError, NotFoundError, AccessDeniedError):
                self._fetcher.now(order, may_grow=False)

        self._session.run("fetch", fetch)

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

        documents = resolve(
            self._digest,
            self._options.platform,
            self._store,
            fetch,
            limits,
            note=lambda text: self._session.emit(Noted(text)),
        )
        self._receipt.names(documents.root, documents.manifest_digest)
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
                self._store.set_whole(config.digest, config.size)
        if data is not None:
            return data
        self._accounts.discard(config.digest)
        raise IntegrityError(
            f"the config does not match its digest {config.digest}, twice; the registry's copy is damaged"
        )

    def _count_cached(self) -> None:
        layers = sum(entry.cached_bytes for entry in self._receipt.layers)
        self._receipt.bytes.cached = self._config_bytes_here + layers
