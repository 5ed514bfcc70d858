"""Results of a client's calls, as frozen values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from msgspec import Struct

from zchunked.receipt import Estimate, Export, Receipt


class PullResult(Struct, frozen=True):
    """An image that is in the store, proved, and wherever it was wanted.

    Attributes:
        reference: What was asked for, with defaults filled in.
        manifest_digest: Of the image's manifest, as the registry has it.
        receipt: Where every byte of the pull went; sizes in compressed bytes, times in seconds.

    Example:
        >>> import zchunked
        >>> result = zchunked.pull("oci:demo:demo-v1", store="store")
        >>> result.platform
        'linux/amd64'
        >>> result.receipt.bytes.fetched  # a layout on this machine costs no traffic
        0
    """

    reference: str
    manifest_digest: str
    receipt: Receipt

    @property
    def platform(self) -> str | None:
        """`os/architecture[/variant]` of the image."""
        return self.receipt.platform

    @property
    def exports(self) -> tuple[Export, ...]:
        """What was written, in order, each with the manifest digest it has there."""
        return tuple(self.receipt.exports)


class PlannedLayer(Struct, frozen=True):
    """One layer of a plan. Sizes in compressed bytes; `reason` says why it comes whole."""

    digest: str
    kind: str
    mode: str
    size: int
    cached_bytes: int
    fetch_bytes: int
    gap_bytes: int
    requests: int
    reason: str | None


class Plan(Struct, frozen=True):
    """What a pull would cost. Nothing was fetched for it but manifests and tables of contents.

    Attributes:
        reference: What was asked for, with defaults filled in.
        manifest_digest: Of the image's manifest.
        estimate: Bytes and requests of the pull; its seconds are None where no rate is known.
        layers: Each layer of the image, in the manifest's order.
        receipt: What the plan itself cost.

    Example:
        >>> import zchunked
        >>> plan = zchunked.plan("oci:demo:demo-v2", store="empty")
        >>> plan.estimate.bytes, len(plan.layers)
        (0, 2)
    """

    reference: str
    manifest_digest: str
    estimate: Estimate
    layers: tuple[PlannedLayer, ...]
    receipt: Receipt


class Sent(Struct, frozen=True):
    """What a publication sent, and what the target had already: numbers of blobs, and bytes."""

    blobs: int
    bytes: int
    there: int
    there_bytes: int


class PublishResult(Struct, frozen=True):
    """An image that can be pulled from `reference`, such as `s3://bucket/prefix:tag`.

    `target` names the place.
    """

    reference: str
    manifest_digest: str
    target: str
    sent: Sent
    receipt: Receipt


class Uploaded(Struct, frozen=True):
    """What a push sent: numbers of blobs, and their bytes.

    `sent` counts what was handed over, however often. `sent_twice`: of that, what was of no use.
    `skipped`: blobs that were there. `mounted`: blobs that the registry took from another
    repository. `resumed_bytes`: what an earlier push had sent of blobs that it did not finish.
    """

    blobs: int
    sent: int
    sent_twice: int
    skipped: int
    skipped_bytes: int
    mounted: int
    resumed_bytes: int


class PushResult(Struct, frozen=True):
    """An image that can be pulled from `reference`.

    `receipt` is of what had to be pulled first; `seconds` of all.
    """

    reference: str
    manifest_digest: str
    uploaded: Uploaded
    requests: int
    retries: int
    seconds: float
    receipt: Receipt


class ConvertedLayerEntry(Struct, frozen=True):
    """One layer before and after. Sizes in bytes of the blobs.

    `outcome`: `converted`, `remembered` (from an earlier conversion), `kept` (it was zstd:chunked)
    or `plain` (without a table of contents; `reason` says why).
    """

    source: str
    digest: str
    diff_id: str
    size_before: int
    size: int
    outcome: str
    reason: str | None


class ConvertedImageEntry(Struct, frozen=True):
    """One platform's image; `source_digest` is the manifest that was converted."""

    platform: str
    source_digest: str
    manifest_digest: str
    image_id: str
    layers: tuple[ConvertedLayerEntry, ...]


class UpdateCost(Struct, frozen=True):
    """Bytes of blobs. `before`: layers as they were, whole.

    `lean`: missing chunks and tables of contents; `exact`: all that makes the registry's own blobs
    of old ones.
    """

    before: int
    lean: int
    exact: int


class ConvertResult(Struct, frozen=True):
    """Converted images at their target.

    Attributes:
        source: What was converted, with defaults filled in.
        manifest_digest: Of what the target names now: a manifest, or an index of several images.
        images: One for each platform.
        size_before: Bytes of all layers as they were, each blob once.
        size_after: Bytes of all layers as they are now, each blob once.
        fetched_bytes: Bytes received over the network for it.
        notes: What a person should know: what was left out, changed or pulled again.
        update: What an update from `against` costs; None where that was not asked for.
        uploaded: What went up to a registry; None for another target.
        receipt: Of the image that was pulled last.
    """

    source: str
    manifest_digest: str
    images: tuple[ConvertedImageEntry, ...]
    size_before: int
    size_after: int
    fetched_bytes: int
    notes: tuple[str, ...]
    update: UpdateCost | None
    uploaded: Uploaded | None
    receipt: Receipt


class FetchedObject(Struct, frozen=True):
    """An object that is in the store, proved.

    `size` in bytes; `pieces` are hashed once more while they are read. `fetched_bytes` is what came
    over the network for it; None for a manifest, and for a blob that was here.
    """

    digest: str
    size: int
    pieces: Callable[[], Iterable[bytes | memoryview]]
    requests: int = 0
    fetched_bytes: int | None = None

    def read(self) -> bytes:
        """Read all of it. Raises IntegrityError where the disk has damaged it since."""
        return b"".join(self.pieces())


class LocatedBlob(Struct, frozen=True):
    """Where a blob can be downloaded: a URL, until `expires` where it tells, or a local path.

    `media_type` and `size` in bytes are None where the blob was asked for by digest alone.
    """

    digest: str
    url: str
    expires: datetime | None
    media_type: str | None
    size: int | None


class ImageEntry(Struct, frozen=True):
    """An image of the store.

    Sizes in compressed bytes, None where its manifest is damaged; `pulled` in UTC. `shared_size`:
    of layers that other images have too. `proved`: by which digests, `blob`, `diff_id` or `both`.
    """

    reference: str
    platform: str
    manifest_digest: str
    root_digest: str
    size: int | None
    shared_size: int | None
    proved: str | None
    pulled: datetime


class Access(Struct, frozen=True):
    """One request that a server answered; `error`: why the answer broke off.

    `time` in seconds since 1970; `bytes` of the answer's body, sent in `seconds`.
    """

    time: float
    client: str
    method: str
    path: str
    status: int
    bytes: int
    seconds: float
    agent: str
    error: str = ""
