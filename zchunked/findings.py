"""What a client finds in its store: images, damage, garbage, and pulls under way. Pure values."""

from __future__ import annotations

from msgspec import Struct, field

from zchunked.oci.digest import Digest


class Image(Struct, frozen=True):
    """A name and what it named when it was pulled. `root`: digest of the index, if any.

    `pulled`: seconds since 1970.
    """

    name: str
    platform: str
    manifest: Digest
    root: Digest
    pulled: float


class Damage(Struct, frozen=True):
    """Bytes that did not match a digest, now dropped. `chunk` where one of its chunks was wrong."""

    blob: str
    start: int
    end: int
    chunk: str | None = None


class Lie(Struct, frozen=True):
    """A layer whose blob is right, but whose tar is not the one that the image's config names."""

    layer: str
    diff_id: str
    says: str


class Findings(Struct):
    """`bytes` were looked at; `unclaimed` are files that nothing pointed to, and are gone.

    `is_read_only`: the store is, so what is damaged stays in it.
    """

    blobs: int = 0
    chunks: int = 0
    bytes: int = 0
    unclaimed: int = 0
    damaged: list[Damage] = field(default_factory=list)
    is_read_only: bool = False
    lies: list[Lie] = field(default_factory=list)


class DroppedPull(Struct, frozen=True):
    """An interrupted pull that a collection gave up; an ingest has no platform."""

    name: str
    platform: str


class Freed(Struct):
    """What a collection did, or would do. `before` and `after` are bytes of all files of the store.

    `blobs`: how many went. `compacted`: how many files were written anew without what went of them.
    `over`: bytes above the budget that stay, for running pulls or other images hold them.
    """

    images: list[Image] = field(default_factory=list)
    pulls: list[DroppedPull] = field(default_factory=list)
    blobs: int = 0
    compacted: int = 0
    before: int = 0
    after: int = 0
    over: int = 0

    @property
    def bytes(self) -> int:
        return max(self.before - self.after, 0)


class LayerStatus(Struct, frozen=True):
    """`here` of `size` bytes are stored; a layer rebuilt from parts never needs all of them.

    `is_done`: proved by a digest.
    """

    digest: str
    size: int
    here: int
    is_done: bool


class PullStatus(Struct, frozen=True):
    """Times in seconds since the epoch, `rate` in bytes per second since its start.

    `process`: its number.
    """

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
