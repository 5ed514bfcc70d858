"""Running and interrupted pulls: how far each of their layers is, how fast, since when."""

from __future__ import annotations

import time
from collections.abc import Callable

from zchunked.errors import FormatError
from zchunked.findings import LayerStatus, PullStatus
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Manifest, parse_document
from zchunked.ranges import ByteRange, merge, total
from zchunked.store import Store
from zchunked.store.processes.pulls import BegunPull


def status(store: Store, now: Callable[[], float] = time.time) -> list[PullStatus]:
    """Oldest first. Layers are empty where the manifest is damaged."""
    rows = [
        row
        for row in store.pulls.rows()
        if row.platform or not store.is_whole(Digest(row.manifest))
    ]
    flying = store.pulls.in_flight() if rows else {}
    return [_status(store, row, flying, now()) for row in rows]


def _status(
    store: Store, row: BegunPull, flying: dict[str, list[ByteRange]], now: float
) -> PullStatus:
    is_running = store.pulls.is_running(row)
    layers, received, last = [], -row.had, row.began
    for digest, size in _blobs(store, row, flying):
        here = total(merge([*store.covered(digest), *flying.get(digest, ())]))
        received += here
        is_done = store.is_whole(digest) or store.is_proved(digest)
        layers.append(LayerStatus(digest, size, here, is_done))
        last = max(last, store.pulls.last_written(digest))
    until = now if is_running else last
    rate = max(received, 0) / (until - row.began) if until > row.began else 0.0
    return PullStatus(
        row.name,
        row.platform,
        row.manifest,
        is_running,
        row.process,
        row.began,
        until,
        round(rate, 1),
        layers,
    )


def _blobs(
    store: Store, row: BegunPull, flying: dict[str, list[ByteRange]]
) -> list[tuple[Digest, int]]:
    """The layers of a pull; of an ingest the blob itself, which has no platform."""
    if row.platform:
        manifest = _manifest(store, row.manifest)
        return [(layer.digest, layer.size) for layer in manifest.layers] if manifest else []
    sizes = {blob: size for blob, size, _ in store.blobs()}
    blob = Digest(row.manifest)
    return [(blob, sizes.get(blob, max((span.end for span in flying.get(blob, ())), default=0)))]


def _manifest(store: Store, digest: str) -> Manifest | None:
    data = store.document(Digest(digest))
    try:
        found = parse_document(data) if data is not None else None
    except FormatError:
        return None
    return found if isinstance(found, Manifest) else None
