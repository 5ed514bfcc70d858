"""Have the images of an index whole in the store: stored ones, or pulled."""

from __future__ import annotations

from dataclasses import replace

from zchunked.errors import ArtifactError, NotFoundError
from zchunked.events import Pulled
from zchunked.export.shipment import is_complete
from zchunked.oci.platform import Platform
from zchunked.operations.context import Context
from zchunked.operations.pulling import pull_of
from zchunked.pull.origin import Origin
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt, image_bytes
from zchunked.store.images import StoredImage, load


class IndexImages:
    """Pulls images of an index; for one thread, which also gets all events."""

    def __init__(self, context: Context, origin: Origin, receipt: Receipt) -> None:
        """`receipt` sums up all pulls."""
        self._context, self._origin, self._receipt = context, origin, receipt
        self._pulled: list[tuple[StoredImage, Pull]] = []

    def image(self, platform: Platform) -> StoredImage | None:
        """The image of a platform; None where the entry is no container image."""
        context, receipt = self._context, Receipt(self._origin.name)
        context = replace(context, options=replace(context.options, platform=platform))
        pull = pull_of(context, self._origin, receipt)
        image = self._stored(platform)
        if image is None:
            try:
                image = pull.run()
            except ArtifactError:
                return None
            finally:
                self._count(receipt)
            context.show(Pulled(image.documents.manifest_digest))
        else:
            receipt.bytes.image = receipt.bytes.cached = image_bytes(image.documents.manifest)
            self._count(receipt)
        self._pulled.append((image, pull))
        return image

    def _stored(self, platform: Platform) -> StoredImage | None:
        store = self._context.store
        try:
            image = load(store, self._origin.name, self._origin.digest, platform)
        except NotFoundError:
            return None
        return image if is_complete(store, image) else None

    def _count(self, one: Receipt) -> None:
        total = self._receipt.bytes
        for name in total.__struct_fields__:
            setattr(total, name, getattr(total, name) + getattr(one.bytes, name))
        self._receipt.requests += one.requests
        self._receipt.retries += one.retries

    def repair(self) -> None:
        """Fetch again what the disk has spoilt of any image."""
        for image, pull in self._pulled:
            pull.repair(image)
