"""A pull, the whole story: documents, tables of contents, a plan, the download with the proofs beside it, the image."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from zchunked.arrivals import Arrivals
from zchunked.crew import Crew
from zchunked.digest import Digest, short
from zchunked.errors import (
    FormatError,
    IntegrityError,
    InterruptedPullError,
    TransferError,
    UnsupportedLayerError,
    ZPullError,
)
from zchunked.events import Event, Noted, Planned
from zchunked.fetch import Checks, Fetcher, Order
from zchunked.image import ImageDocuments, StoredImage, resolve
from zchunked.layer.locate import kind_of, locate
from zchunked.layer.plan import GapPolicy, missing, runs_for
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci import Config, Descriptor, Platform, parse_config
from zchunked.prove import Proof, UnprovedError, drop_liars, find_liars, prove_parts, prove_whole
from zchunked.ranges import ByteRange, total
from zchunked.reassemble import Contents, Rebuild, is_chunk, read_contents
from zchunked.receipt import Accounts, LayerEntry, Receipt
from zchunked.retry import Chameleon, Patience, RetryingSource, Stopped
from zchunked.seams import Emit, Source
from zchunked.store import Store
from zchunked.store.store import Place
from zchunked.traffic import Traffic

_PROVERS = 2
_WHOLE_PREMIUM = 1.125  # a layer of which nothing is here comes whole at up to this multiple of its parts


@dataclass(frozen=True, slots=True)
class Options:
    """`exact`: always take layers whole. `max_gap`: bytes; 0 never buys a byte that is not needed, None lets the plan decide."""

    platform: Platform
    jobs: int = 8
    patience: Patience = Patience()
    deadline: float | None = None
    min_rate: float | None = None
    exact: bool = False
    max_gap: int | None = None
    limits: Limits = DEFAULT_LIMITS


@dataclass(slots=True, eq=False)
class _Work:
    """One distinct layer on its way. `contents` once its TOC is understood; `places` say where its chunks lie."""

    layer: Descriptor
    diff_id: Digest
    entry: LayerEntry
    is_cached: bool = False
    contents: Contents | None = None
    here_before: int = 0  # bytes of the blob itself
    places: dict[bytes, Place] = field(default_factory=dict)
    order: Order | None = None
    proof: Proof | None = None
    failure: ZPullError | None = None

    @property
    def is_whole(self) -> bool:
        return self.entry.mode == "whole"

    def come_whole(self, reason: str | None) -> None:
        self.entry.mode, self.entry.reason = "whole", reason


class Pull:
    """One pull of one image into the store. `run` once, on the caller's thread, which also gets all events."""

    def __init__(
        self, name: str, digest: Digest | None, source: Source, store: Store, traffic: Traffic, options: Options,
        receipt: Receipt, show: Emit, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._name, self._digest, self._store, self._options = name, digest, store, options
        self._traffic, self._receipt, self._show, self._clock = traffic, receipt, show, clock
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._chameleon = Chameleon(options.patience, options.jobs, self._events.put, self._stop, clock)
        self._source = RetryingSource(source, self._chameleon)
        self._accounts = Accounts()
        self._arrivals = Arrivals(self._stop)
        self._fetcher = Fetcher(self._source, store, self._arrivals, self._accounts, self._events.put, self._stop)
        self._began = clock()
        self._rate_mark = (self._began, 0)
        self._config_here = False

    def run(self) -> StoredImage:
        """Raises one ZPullError; whatever arrived stays. The receipt is true afterwards, also of a pull that failed."""
        self._began = self._clock()
        crew = Crew({"fetch": self._options.jobs, "prove": _PROVERS}, self._stop)
        try:
            with crew:
                return self._run(crew)
        except KeyboardInterrupt as error:
            raise InterruptedPullError("interrupted; run the same command to resume") from error
        finally:
            self._stop.set()
            if crew.is_gone:
                self._fetcher.close()
            self._tick()
            self._receipt.settle(self._traffic, self._accounts)
            self._receipt.retries = self._chameleon.retries
            self._receipt.seconds = round(self._clock() - self._began, 3)

    def _run(self, crew: Crew) -> StoredImage:
        found: list[tuple[ImageDocuments, bytes, Config]] = []
        crew.submit("fetch", lambda: found.append(self._documents()))
        crew.wait(self._tick)
        documents, config_data, config = found[0]
        works = self._open(documents, config)
        todo = [work for work in works if not work.is_cached]
        for work in todo:
            crew.submit("fetch", lambda work=work: self._understand(work))  # type: ignore[misc]
        crew.wait(self._tick)
        self._note_here(works, documents)
        for is_last in (False, True):
            self._download(crew, todo)
            todo = [work for work in todo if work.failure]
            if not todo:
                break
            self._heal(todo, is_last=is_last)
        self._store.set_image(self._name, str(config.platform), documents.manifest_digest, documents.root)
        return StoredImage(self._name, documents, config_data, config)

    def _tick(self) -> None:
        while not self._events.empty():
            self._show(self._events.get())
        if self._stop.is_set():
            return
        now = self._clock()
        limit = self._options.deadline
        if limit is not None and now - self._began > limit:
            raise TransferError(f"the deadline of {limit:g} s has passed")
        self._watch_rate(now)

    def _watch_rate(self, now: float) -> None:
        least = self._options.min_rate
        since, before = self._rate_mark
        if least is None or now - since < 10:
            return
        rate = (self._traffic.fetched - before) / (now - since)
        self._rate_mark = (now, self._traffic.fetched)
        if rate < least:
            raise TransferError(f"{rate:.0f} bytes/s over {now - since:.0f} s is below the minimum rate of {least:.0f}")

    # ── what the image is ──

    def _documents(self) -> tuple[ImageDocuments, bytes, Config]:
        limits = self._options.limits

        def fetch(digest: Digest | None):  # type: ignore[no-untyped-def]  # noqa: ANN202
            document = self._source.manifest(digest)
            self._accounts.add(metadata=len(document.data))
            return document

        documents = resolve(self._digest, self._options.platform, self._store, fetch, limits)
        self._receipt.manifest_digest = documents.manifest_digest
        manifest = documents.manifest
        if manifest.config.size > limits.manifest_bytes:
            raise FormatError(f"the config has {manifest.config.size} bytes, the limit is {limits.manifest_bytes}")
        data = self._config(manifest.config)
        return documents, data, parse_config(data, len(manifest.layers), limits=limits)

    def _config(self, config: Descriptor) -> bytes:
        whole = [ByteRange(0, config.size)] if config.size else []
        data = self._store.get(config.digest, config.size)
        self._config_here = data is not None
        for _ in range(2):
            if data is not None:
                return data
            self._fetcher.now(Order(config, missing(whole, self._store.covered(config.digest)), whole, whole))
            data = self._store.get(config.digest, config.size)  # drops it if it is not what was promised
        raise IntegrityError(
            f"the config does not match its digest {config.digest}, twice; the registry's copy is damaged"
        )

    def _open(self, documents: ImageDocuments, config: Config) -> list[_Work]:
        layers = documents.manifest.layers
        self._receipt.platform = str(config.platform)
        self._receipt.list_layers(documents.manifest, config.diff_ids, [kind_of(layer) for layer in layers])
        works: dict[tuple[Digest, Digest], _Work] = {}
        for layer, diff_id, entry in zip(layers, config.diff_ids, self._receipt.layers, strict=True):
            is_new = (layer.digest, diff_id) not in works
            is_proved = self._store.proof(layer.digest, diff_id) is not None
            if is_new:
                works[layer.digest, diff_id] = _Work(layer, diff_id, entry, is_proved)
            if is_proved or not is_new:
                entry.mode, entry.cached_bytes = "cached", layer.size if is_proved else 0
        return list(works.values())

    # ── what each layer holds ──

    def _understand(self, work: _Work) -> None:
        """Bring TOC and tar-split of a layer that can be pulled in parts; else say why it comes whole."""
        layer, limits = work.layer, self._options.limits
        covered = self._store.covered(layer.digest)
        work.here_before = total(covered)
        try:
            location = locate(layer, limits)
            parts = [location.toc.span, *([location.tarsplit.span] if location.tarsplit else [])]
            work.contents = self._contents(layer, location.metadata, parts)
        except UnsupportedLayerError as error:
            work.come_whole(str(error))
        if layer.digest in self._fetcher.without_ranges:
            work.come_whole("its host serves no ranges")

    def _contents(self, layer: Descriptor, together: ByteRange, parts: list[ByteRange]) -> Contents:
        for is_last in (False, True):
            covered = self._store.covered(layer.digest)
            left = [missing([part], covered) for part in [together, *parts]]
            spans = left[0] if any(left[1:]) else []
            spans = missing([*spans, *(span for some in left[1:] for span in some)], covered)
            self._fetcher.now(Order(layer, spans, parts, parts))
            try:
                return read_contents(self._store, layer, self._options.limits)
            except IntegrityError:
                if is_last:
                    raise
                self._store.evict(layer.digest, parts)
                self._accounts.add(metadata=-total(parts))
        raise AssertionError

    def _note_here(self, works: Iterable[_Work], documents: ImageDocuments) -> None:
        config = documents.manifest.config
        self._receipt.bytes.cached = sum(entry.cached_bytes for entry in self._receipt.layers) + (
            config.size if self._config_here else 0
        )

    # ── plan and download ──

    def _download(self, crew: Crew, works: list[_Work]) -> None:
        self._plan(works)
        need = sum(total(work.order.runs) for work in works if work.order)
        self._show(Planned(self._receipt.bytes.image, self._receipt.bytes.cached, need))
        for work in works:
            work.failure = None
            if work.order and work.order.runs:
                self._fetcher.order(crew, work.order)
        for work in works:
            crew.submit("prove", lambda work=work: self._prove(work))  # type: ignore[misc]
        crew.wait(self._tick)
        self._fetcher.close()
        for work in works:
            if work.proof:
                self._keep(work, work.proof)

    def _plan(self, works: list[_Work]) -> None:
        digests = {digest for work in works if work.contents for digest in work.contents.toc.digests}
        found = self._store.find_chunks(list(digests))
        for work in works:
            if work.is_whole or work.contents is None:
                continue
            self._check_loose(work, found)
            if reason := self._whole_is_cheaper(work, found):
                work.come_whole(reason)
        promised = dict(found)
        for work in works:
            if work.contents is not None and work.is_whole:
                for digest, place in _own_places(work.contents).items():
                    promised.setdefault(digest, place)
        for work in works:
            if work.is_whole or work.contents is None:
                whole = [ByteRange(0, work.layer.size)] if work.layer.size else []
                work.order = self._order(work, whole, [], Checks())
            else:
                self._plan_parts(work, found, promised)
            self._count_here(work, found)

    def _check_loose(self, work: _Work, found: dict[bytes, Place]) -> None:
        """Chunks whose bytes an earlier run left behind, but not yet the row that says so."""
        if work.contents is None or not work.here_before:
            return
        toc, blob = work.contents.toc, work.layer.digest
        rows = []
        for digest, place in _own_places(work.contents).items():
            if digest not in found and self._store.covers(blob, ByteRange(place.start, place.start + place.length)):
                rows.append((digest, place))
        sizes = dict(zip(toc.digests, toc.chunk_sizes, strict=True))
        good = [(digest, place) for digest, place in rows if is_chunk(self._store, place, sizes[digest], digest)]
        bad = {place for _, place in rows} - {place for _, place in good}
        if bad:
            self._store.evict(blob, [ByteRange(place.start, place.start + place.length) for place in bad])
        found.update(good)
        self._store.add_chunks(blob, work.layer.size, [(d, p.start, p.length, sizes[d]) for d, p in good])

    def _whole_is_cheaper(self, work: _Work, found: dict[bytes, Place]) -> str | None:
        contents, options = work.contents, self._options
        if contents is None or (options.max_gap == 0 and not options.exact):
            return None
        own = _own_places(contents)
        elsewhere = any(digest in found and found[digest].blob != work.layer.digest for digest in own)
        covered = self._store.covered(work.layer.digest)
        whole = work.layer.size - total(covered)
        spans = [ByteRange(place.start, place.start + place.length) for place in own.values()]
        parts = total(missing([*spans, *contents.metadata], covered))
        if options.exact:
            return "asked for by --exact"
        if not elsewhere and whole <= parts * _WHOLE_PREMIUM:
            return "nothing of it is here, and whole it costs little more than its parts"
        return None

    def _plan_parts(self, work: _Work, found: dict[bytes, Place], promised: dict[bytes, Place]) -> None:
        contents = work.contents
        if contents is None:
            return
        toc = contents.toc
        order_of: dict[bytes, int] = {}
        for chunk, digest in enumerate(toc.digests):
            if toc.holes[chunk]:
                continue
            if digest in promised:
                work.places[digest] = promised[digest]
                continue
            best = order_of.get(digest)
            if best is None or toc.ends[chunk] - toc.starts[chunk] < toc.ends[best] - toc.starts[best]:
                order_of[digest] = chunk
        chunks = sorted(order_of.values(), key=toc.starts.__getitem__)
        for chunk in chunks:
            start = toc.starts[chunk]
            place = Place(work.layer.digest, start, toc.ends[chunk] - start)
            work.places[toc.digests[chunk]] = promised[toc.digests[chunk]] = place
        checks = Checks(
            [toc.starts[chunk] for chunk in chunks], [toc.ends[chunk] for chunk in chunks],
            [toc.chunk_sizes[chunk] for chunk in chunks], [toc.digests[chunk] for chunk in chunks],
        )  # fmt: skip
        spans = [ByteRange(start, end) for start, end in zip(checks.starts, checks.ends, strict=True)]
        work.order = self._order(work, [*spans, *contents.metadata], contents.metadata, checks)

    def _order(self, work: _Work, wanted: list[ByteRange], metadata: list[ByteRange], checks: Checks) -> Order:
        most = self._options.max_gap
        policy = GapPolicy() if most is None else GapPolicy(most=most, share=0.0 if most == 0 else 1e9)
        left = missing(wanted, self._store.covered(work.layer.digest))
        runs = runs_for(left, policy=policy, jobs=self._options.jobs)
        return Order(work.layer, runs, missing(wanted, []), sorted(metadata), checks)

    def _count_here(self, work: _Work, found: dict[bytes, Place]) -> None:
        """What of the layer was here before: bytes of its own blob, and chunks that other blobs hold."""
        here = work.here_before
        if work.contents is not None and not work.is_whole:
            toc = work.contents.toc
            for chunk, digest in enumerate(toc.digests):
                if digest in found and found[digest].blob != work.layer.digest:
                    here += toc.ends[chunk] - toc.starts[chunk]
        self._receipt.bytes.cached += min(here, work.layer.size) - work.entry.cached_bytes
        work.entry.cached_bytes = min(here, work.layer.size)

    # ── proof ──

    def _prove(self, work: _Work) -> None:
        limits = self._options.limits
        try:
            if work.is_whole or work.contents is None or work.layer.digest in self._fetcher.without_ranges:
                work.proof = prove_whole(self._store, work.layer, work.diff_id, self._arrivals.wait_for, limits)
            else:
                rebuild = Rebuild(self._store, work.contents, work.places, self._arrivals.wait_for, limits)
                work.proof = prove_parts(rebuild, work.layer, work.diff_id)
        except Stopped:
            raise
        except (IntegrityError, FormatError) as error:
            work.failure = error

    def _keep(self, work: _Work, proof: Proof) -> None:
        """Rows that speak of the layer as a whole come last: their bytes are on the disk by now."""
        layer = work.layer
        if proof.is_whole:
            self._store.set_whole(layer.digest, layer.size)
            contents = work.contents
            if contents is not None:
                toc = contents.toc
                rows = zip(toc.digests, toc.starts, toc.ends, toc.chunk_sizes, toc.holes, strict=True)
                self._store.add_chunks(
                    layer.digest, layer.size, [(d, s, e - s, z) for d, s, e, z, hole in rows if not hole]
                )
        self._store.add_proof(layer.digest, work.diff_id, proof.tar_size)

    def _heal(self, works: list[_Work], *, is_last: bool) -> None:
        """A rebuilt tar was wrong: find out whether the store or the image lies. A lying image is the end, and leaves nothing."""
        for work in works:
            failure = work.failure
            if failure is None:
                continue
            if is_last or not self._evict_damage(work, failure):
                self._store.evict(work.layer.digest, [ByteRange(0, max(work.layer.size, 1))])
                if work.contents:
                    self._store.drop_chunks(work.layer.digest, set(work.contents.toc.digests))
                raise failure
            self._show(Noted(f"layer {short(work.layer.digest)}: damaged bytes dropped, fetching them again"))

    def _evict_damage(self, work: _Work, failure: ZPullError) -> bool:
        """True if the store had wrong bytes of the layer, which are gone now."""
        layer = work.layer
        if work.is_whole:
            if isinstance(failure, (UnprovedError, FormatError)):
                return False  # the blob is what the registry promised
            self._accounts.add(needed=-min(self._accounts.fetched_of(layer.digest), self._accounts.needed))
            self._store.evict(layer.digest, [ByteRange(0, layer.size)])
            return True
        if work.contents is None or isinstance(failure, FormatError):
            return False
        liars = find_liars(self._store, work.contents, work.places)
        drop_liars(self._store, liars)
        work.places.clear()
        work.here_before = total(self._store.covered(layer.digest))
        return bool(liars)


def _own_places(contents: Contents) -> dict[bytes, Place]:
    """Where the layer's own blob has each chunk, holes left out; the shortest copy of those that occur twice."""
    toc, blob = contents.toc, contents.layer.digest
    places: dict[bytes, Place] = {}
    for digest, start, end, hole in zip(toc.digests, toc.starts, toc.ends, toc.holes, strict=True):
        if not hole:
            known = places.get(digest)
            if known is None or end - start < known.length:
                places[digest] = Place(blob, start, end - start)
    return places
