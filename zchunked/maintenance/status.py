"""Pulls that are under way or were interrupted: how far each of their layers is, how fast, since when."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from zchunked.errors import FormatError
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Manifest, parse_document
from zchunked.ranges import ByteRange, merge, total
from zchunked.store import Store
from zchunked.store.pulls import BegunPull


@dataclass(frozen=True, slots=True)
class LayerStatus:
    """`here` of `size` bytes are in the store; a layer that is rebuilt from parts never needs all of them.

    `is_done`: proved by a digest.
    """

    digest: str
    size: int
    here: int
    is_done: bool


@dataclass(frozen=True, slots=True)
class PullStatus:
    """Times in seconds since the epoch, `rate` in bytes per second since the pull began. `process`: its number."""

    reference: str
    platform: str
    manifest_digest: str
    is_running: bool
    process: int
    began: float
    last: float
    rate: float
    layers: list[LayerStatus]

    @property
    def here(self) -> int:
        return sum(layer.size if layer.is_done else layer.here for layer in self.layers)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)


def status(store: Store, now: Callable[[], float] = time.time) -> list[PullStatus]:
    """Oldest first. Layers are empty where the manifest is damaged."""
    rows = store.pulls.rows()
    flying = store.pulls.in_flight() if rows else {}
    return [_status(store, row, flying, now()) for row in rows]


def _status(store: Store, row: BegunPull, flying: dict[str, list[ByteRange]], now: float) -> PullStatus:
    is_running = store.pulls.is_running(row)
    manifest = _manifest(store, row.manifest)
    layers, came, last = [], -row.had, row.began
    for layer in manifest.layers if manifest else ():
        here = total(merge([*store.covered(layer.digest), *flying.get(layer.digest, ())]))
        came += here
        is_done = store.is_whole(layer.digest) or store.is_proved(layer.digest)
        layers.append(LayerStatus(layer.digest, layer.size, here, is_done))
        last = max(last, store.pulls.last_written(layer.digest))
    until = now if is_running else last
    rate = max(came, 0) / (until - row.began) if until > row.began else 0.0
    return PullStatus(
        row.name, row.platform, row.manifest, is_running, row.process, row.began, until, round(rate, 1), layers
    )


def _manifest(store: Store, digest: str) -> Manifest | None:
    data = store.document(Digest(digest))
    try:
        found = parse_document(data) if data is not None else None
    except FormatError:
        return None
    return found if isinstance(found, Manifest) else None
