"""Collect garbage: keep what names and running pulls need, then what fits a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from zchunked.errors import FormatError, IntegrityError, LocalError, UnsupportedLayerError
from zchunked.findings import DroppedPull, Freed, Image
from zchunked.layers.metadata import read_index_and_tarsplit
from zchunked.maintenance.gc_plan import Budget, GcPlan, Holder, plan
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_config, parse_document
from zchunked.options import GcOptions
from zchunked.ranges import ByteRange, merge
from zchunked.store import Store
from zchunked.store.index.collector import Collector
from zchunked.store.index.forget import Drop
from zchunked.store.processes.pulls import BegunPull

_TRIES = 20  # each fails only because another process has finished or begun something meanwhile
_ROUNDS = 3  # a budget is met by estimate; what the index really weighs is seen afterwards


def collect(folder: Path, options: GcOptions, *, now: Callable[[], float] = time.time) -> Freed:
    """Safe beside pulls on the same store, and after a kill at any moment.

    Raises LocalError where the file system has no locks, or the disk fails.
    """
    with Store(folder) as store:
        collector = store.collector()
        freed = Freed(before=collector.disk_bytes())
        aim = options.max_bytes
        for _ in range(_ROUNDS):
            planned = _collected(store, collector, options, aim, freed, now)
            if options.is_dry:
                freed.after = (
                    planned.kept_bytes
                    + collector.disk_bytes()
                    - sum(collector.file_sizes().values())
                )
                break
            for file in planned.compact:
                freed.compacted += bool(collector.compact(file))
            collector.remove_unclaimed()
            collector.shrink_index()
            freed.after = collector.disk_bytes()
            if options.max_bytes is None or aim is None or freed.after <= options.max_bytes:
                break
            if not (planned.given_up or planned.dead or planned.compact):
                break
            aim -= freed.after - options.max_bytes
        if options.max_bytes is not None:
            freed.over = max(freed.after - options.max_bytes, 0)
        return freed


def keep_within(folder: Path, most: int, *, since: float = math.inf) -> None:
    """Collect garbage if the store weighs more than `most` bytes; otherwise only stat its files.

    Neither what was pulled since then nor what running processes use goes. Raises as `collect`
    does.
    """
    with Store(folder) as store:
        weight = store.collector().disk_bytes()
    if weight > most:
        collect(folder, GcOptions(max_bytes=most, since=since))


def _collected(
    store: Store,
    collector: Collector,
    options: GcOptions,
    aim: int | None,
    freed: Freed,
    now: Callable[[], float],
) -> GcPlan:
    """Plan and let the rows go; again when another process has changed what the plan rests on."""
    for _ in range(_TRIES):
        found = _Findings(store, collector, options, now())
        planned = found.plan(aim)
        refs = [
            *found.refs_over,
            *(one.key for one in planned.given_up if isinstance(one.key, Image)),
        ]
        pulls = [
            *found.pulls_over,
            *(one.key for one in planned.given_up if isinstance(one.key, BegunPull)),
        ]
        if not options.is_dry:
            drop = Drop(
                planned.dead,
                planned.trimmed,
                found.chunks,
                found.rests,
                refs,
                [pull.number for pull in pulls],
                found.layers_of_images() if planned.dead or planned.trimmed else (),
            )
            is_done = collector.forget(drop, found.refs, found.pulls)
            store.refresh()
            if not is_done:
                continue
        freed.images += refs
        freed.pulls += [DroppedPull(pull.name, pull.platform) for pull in pulls]
        freed.blobs += len(planned.dead)
        return planned
    raise LocalError("other processes change the store all the time; run zpull gc again")


class _Findings:
    """What keeps which bytes, as of now.

    `chunks` and `rests` belong to the parts of blobs that holders need.
    """

    def __init__(self, store: Store, collector: Collector, options: GcOptions, now: float) -> None:
        self._store, self._collector, self._since = store, collector, options.since
        self.refs, self.pulls = collector.holders()
        blobs = store.blobs()
        self.blobs = {digest: is_whole for digest, _, is_whole in blobs}
        self._sizes = {digest: size for digest, size, _ in blobs}
        self._rests = collector.rests()
        self.chunks: dict[str, set[bytes]] = {}
        self.rests: dict[tuple[str, str], set[str]] = {}
        self._manifests: dict[str, Manifest | None] = {}
        self._rebuilt: dict[tuple[str, str], dict[str, list[ByteRange]] | None] = {}
        self.rows = collector.file_rows()
        self._pinned = collector.pinned()
        kept = _chosen(self.refs, options, now)
        self.refs_over = [ref for ref in self.refs if ref not in kept]
        self.holders = [self._of_image(ref) for ref in kept]
        self.holders += self._of_pulls(options, now)
        self.pulls_over = [
            pull for pull in self.pulls if pull not in {one.key for one in self.holders}
        ]
        self.holders += self._of_processes()
        self.holders += self._of_downloads(options, now)

    def plan(self, aim: int | None) -> GcPlan:
        sizes = self._collector.file_sizes()
        overhead = self._collector.disk_bytes() - sum(sizes.values())
        busy = self._collector.busy_files() | self._files_of(self._pinned)
        budget = Budget(aim, overhead) if aim is not None else None
        return plan(self.holders, self.rows, sizes, self.blobs, busy=busy, budget=budget)

    def _files_of(self, blobs: set[str]) -> set[str]:
        return {row[0] for row in self.rows if row[3] in blobs} if blobs else set()

    def layers_of_images(self) -> list[tuple[str, str]]:
        """(layer, manifest) of every image that stays."""
        found: list[tuple[str, str]] = []
        for ref in self.refs:
            manifest = self._manifests.get(ref.manifest)
            found += (
                [(str(layer.digest), ref.manifest) for layer in manifest.layers] if manifest else []
            )
        return found

    # ── holders ──

    def _of_image(self, ref: Image) -> Holder:
        reaches, parts = self._reach(ref.manifest)
        return Holder(
            ref, frozenset({ref.root, *reaches}), ref.pulled, ref.pulled >= self._since, parts
        )

    def _of_pulls(self, options: GcOptions, now: float) -> Iterator[Holder]:
        for pull in self.pulls:
            is_running = self._collector.pulls.is_running(pull)
            reaches, parts = self._reach(pull.manifest) if pull.platform else ({pull.manifest}, {})
            at = max([pull.began, *map(self._collector.pulls.last_written, reaches)])
            if is_running or (
                options.keep is None and options.keep_last is None and now - at <= options.expiry
            ):
                yield Holder(
                    pull, frozenset(reaches), at, is_running or pull.began >= self._since, parts
                )

    def _of_processes(self) -> Iterator[Holder]:
        """What processes use, and what the layers among that were rebuilt from."""
        if self._pinned:
            rests = {
                blob
                for (layer, _), blobs in self._rests.items()
                if layer in self._pinned
                for blob in blobs
            }
            yield Holder("pinned", frozenset(self._pinned | rests), is_fixed=True)

    def _of_downloads(self, options: GcOptions, now: float) -> Iterator[Holder]:
        """Partial blobs of no known image: objects, and pulls by other means."""
        if options.keep is not None or options.keep_last is not None:
            return
        here = self._collector.weights()
        reached = {blob for holder in self.holders for blob in (*holder.reaches, *holder.parts)}
        proved = self._collector.proved()
        for blob, size in self._sizes.items():
            if not 0 < here.get(blob, 0) < size or blob in reached or blob in proved:
                continue
            at = self._collector.pulls.last_written(blob)
            if now - at <= options.expiry:
                yield Holder(("download", blob), frozenset({blob}), at)

    # ── what a manifest reaches ──

    def _manifest(self, digest: str) -> Manifest | None:
        if digest not in self._manifests:
            data = self._store.document(Digest(digest))
            try:
                found = parse_document(data) if data is not None else None
            except FormatError:
                found = None
            self._manifests[digest] = found if isinstance(found, Manifest) else None
        return self._manifests[digest]

    def _reach(self, digest: str) -> tuple[set[str], dict[str, list[ByteRange]]]:
        manifest = self._manifest(digest)
        if manifest is None:
            return {digest}, {}
        reaches = {
            digest,
            str(manifest.config.digest),
            *(str(layer.digest) for layer in manifest.layers),
        }
        config = self._store.get(manifest.config.digest, manifest.config.size)
        try:
            diff_ids = (
                parse_config(config, len(manifest.layers)).diff_ids if config is not None else ()
            )
        except FormatError:
            diff_ids = ()
        parts: dict[str, list[ByteRange]] = {}
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=False):
            others = self._rests.get((layer.digest, diff_id), set()) - {layer.digest}
            if self.blobs.get(layer.digest) or not others:
                continue
            needed = self._parts(layer, diff_id)
            if needed is None:
                reaches |= others
            else:
                for blob, spans in needed.items():
                    parts[blob] = merge([*parts.get(blob, ()), *spans])
        return reaches, parts

    def _parts(self, layer: Descriptor, diff_id: str) -> dict[str, list[ByteRange]] | None:
        """Spans of other blobs with chunks of a layer; None where its TOC cannot be read."""
        key = (str(layer.digest), diff_id)
        if key not in self._rebuilt:
            self._rebuilt[key] = self._find_parts(layer, key)
        return self._rebuilt[key]

    def _find_parts(
        self, layer: Descriptor, key: tuple[str, str]
    ) -> dict[str, list[ByteRange]] | None:
        try:
            wanted = read_index_and_tarsplit(self._store, layer).own_chunks()
        except (IntegrityError, FormatError, UnsupportedLayerError):
            return None
        places = self._store.find_chunks(wanted)
        if len(places) < len(wanted):
            return None
        spans: dict[str, list[ByteRange]] = {}
        for digest, place in places.items():
            spans.setdefault(place.blob, []).append(place.span)
            self.chunks.setdefault(place.blob, set()).add(digest)
        self.rests[key] = {*spans}
        return {blob: merge(its) for blob, its in spans.items() if blob != layer.digest}


def _chosen(refs: Collection[Image], options: GcOptions, now: float) -> list[Image]:
    """The images that may stay, latest pulled first."""
    kept = [ref for ref in refs if options.max_age is None or now - ref.pulled <= options.max_age]
    if options.keep is not None or options.keep_last is not None:
        named = options.keep or frozenset()
        last = kept[: options.keep_last or 0]
        kept = [ref for ref in refs if (ref.name, ref.platform) in named or ref in last]
    return kept
