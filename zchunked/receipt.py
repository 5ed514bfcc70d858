"""The receipt: what a pull cost, every byte in exactly one column; and the accounts behind it."""

from __future__ import annotations

import threading
from typing import Literal

from msgspec import Struct, field

from zchunked.interfaces import TrafficCounts
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest

Mode = Literal["partial", "whole", "cached"]
Way = Literal["exact", "lean", "whole"]
Proved = Literal["blob", "diff_id", "both"]


class ByteCounts(Struct):
    """Bytes that were kept, by what they are good for."""

    needed: int = 0
    metadata: int = 0
    gap: int = 0

    def add(self, other: ByteCounts, times: int) -> None:
        self.needed += times * other.needed
        self.metadata += times * other.metadata
        self.gap += times * other.gap


class Accounts:
    """What arrived and was kept, blob by blob. Bytes; thread-safe.

    `is_free`: nothing is received over a network, so nothing is recorded.
    """

    def __init__(self, *, is_free: bool = False) -> None:
        self.is_free = is_free
        self._lock = threading.Lock()
        self._useful: dict[Digest | None, ByteCounts] = {}
        self._fetched: dict[Digest, int] = {}

    def document(self, size: int) -> None:
        """A manifest or index; a negative size takes a bad one back."""
        self.add(None, ByteCounts(metadata=size))

    @property
    def documents(self) -> int:
        with self._lock:
            useful = self._useful.get(None)
        return useful.metadata if useful else 0

    def add(self, blob: Digest | None, useful: ByteCounts) -> None:
        if self.is_free:
            return
        with self._lock:
            self._useful.setdefault(blob, ByteCounts()).add(useful, 1)

    def take_back(self, blob: Digest, useful: ByteCounts) -> None:
        """What was counted turned out to be wrong: it becomes waste."""
        if self.is_free:
            return
        with self._lock:
            self._useful.setdefault(blob, ByteCounts()).add(useful, -1)

    def discard(self, blob: Digest) -> None:
        """Count all that was received of this blob as waste."""
        with self._lock:
            self._useful.pop(blob, None)

    def fetched(self, blob: Digest, size: int) -> None:
        """Body bytes of one blob, good or not."""
        if self.is_free:
            return
        with self._lock:
            self._fetched[blob] = self._fetched.get(blob, 0) + size

    def fetched_of(self, blob: Digest) -> int:
        return self._fetched.get(blob, 0)

    def total(self) -> ByteCounts:
        total = ByteCounts()
        with self._lock:
            for useful in self._useful.values():
                total.add(useful, 1)
        return total


class LayerEntry(Struct):
    """One layer on the receipt. Bytes are compressed bytes of this layer.

    `identical`: the store has the registry's own blob, every byte. `proved`: by which digests, so
    far; None of a layer that is not here. `reason` says why it came the way it did, where that is
    not the obvious one.
    """

    digest: str
    diff_id: str
    size: int
    kind: str
    mode: Mode = "partial"
    identical: bool = False
    proved: Proved | None = None
    reason: str | None = None
    cached_bytes: int = 0
    fetched_bytes: int = 0


class Bytes(Struct):
    """`image` and `cached` are the registry's sizes; fetched = needed + metadata + gap + wasted."""

    image: int = 0
    cached: int = 0
    needed: int = 0
    metadata: int = 0
    gap: int = 0
    fetched: int = 0
    wasted: int = 0


class Export(Struct):
    """What was written, and the manifest digest it has there: the registry's own, or another one.

    An archive for docker has none.
    """

    to: str
    manifest_digest: str | None


class Estimate(Struct):
    """What a pull right after this plan will fetch.

    `seconds` is None where no rate was given or measured.
    """

    bytes: int
    requests: int
    seconds: float | None


class WayEstimate(Struct):
    """What the image would cost if each layer came one way, as far as it can.

    `taken`: that is what a pull would do.
    """

    way: Way
    bytes: int
    requests: int
    seconds: float
    taken: bool


class Receipt(Struct):
    """Where every byte of a pull went; of a plan, what it did itself, and its estimate."""

    reference: str
    platform: str | None = None
    manifest_digest: str | None = None
    index_digest: str | None = None
    """Of the index that the reference names, where it names one."""
    image_id: str | None = None
    layers: list[LayerEntry] = field(default_factory=list)
    bytes: Bytes = field(default_factory=Bytes)
    requests: int = 0
    retries: int = 0
    seconds: float = 0.0
    exports: list[Export] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What is not as was asked for, or not as the registry has it."""
    estimate: Estimate | None = None
    ways: list[WayEstimate] | None = None

    def names(self, root: Digest, manifest: Digest) -> None:
        """`root`: what the reference names, an index or the manifest itself."""
        self.manifest_digest, self.index_digest = manifest, root if root != manifest else None

    def exported(self, export: Export) -> str | None:
        """Take it down; returns a warning where it has another manifest than the registry's."""
        self.exports.append(export)
        if export.manifest_digest in (None, self.manifest_digest):
            return None
        self.warnings.append(
            f"{export.to} has manifest {export.manifest_digest}, not the registry's "
            f"{self.manifest_digest}: layers that came in parts are plain tars there; --exact "
            "keeps the registry's"
        )
        return self.warnings[-1]

    def list_layers(
        self, manifest: Manifest, diff_ids: tuple[Digest, ...], kinds: list[str]
    ) -> None:
        self.image_id = manifest.config.digest
        self.layers = [
            LayerEntry(layer.digest, diff_id, layer.size, kind)
            for layer, diff_id, kind in zip(manifest.layers, diff_ids, kinds, strict=True)
        ]
        self.bytes.image = image_bytes(manifest)

    def settle(self, traffic: TrafficCounts, accounts: Accounts) -> None:
        """Take over the counts; what was received and is of no use is waste."""
        spent, useful = self.bytes, accounts.total()
        spent.needed, spent.metadata = useful.needed, useful.metadata - traffic.gained
        spent.gap = useful.gap + traffic.framing  # both are the price of fewer requests
        spent.fetched = traffic.fetched
        spent.wasted = spent.fetched - spent.needed - spent.metadata - spent.gap
        self.requests = traffic.requests
        for digest in {layer.digest for layer in self.layers}:
            # A blob that is listed twice was fetched once.
            first = next(layer for layer in self.layers if layer.digest == digest)
            first.fetched_bytes = accounts.fetched_of(Digest(digest))


def image_bytes(manifest: Manifest) -> int:
    """Config and layers as listed."""
    blobs: list[Descriptor] = [manifest.config, *manifest.layers]
    return sum(blob.size for blob in blobs)
