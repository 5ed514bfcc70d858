"""Have everything that an index lists in the store: images by pulls, the rest blob by blob."""

from __future__ import annotations

import json
from dataclasses import replace

from zchunked.export.shipment import Shipment, shipment_of
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import OCI_INDEX, Descriptor, Index, parse_document
from zchunked.operations.context import Context
from zchunked.operations.uploads.index_images import IndexImages
from zchunked.operations.uploads.referrers import listed_documents, with_referrers
from zchunked.pull.objects.fetcher import ObjectFetcher
from zchunked.pull.origin import Origin
from zchunked.receipt import Receipt


class IndexSource:
    """`shipment` once; all on the caller's thread, which also gets all events."""

    def __init__(self, context: Context, origin: Origin, receipt: Receipt) -> None:
        self._context, self._origin, self._receipt = context, origin, receipt
        self._images: IndexImages | None = None

    def shipment(self, *, referrers: bool) -> Shipment | None:
        """Everything that SOURCE names; None where that is not an index."""
        with self._objects() as objects:
            root = objects.manifest(None)
        document = parse_document(root)
        if not isinstance(document, Index):
            return None
        digest = self._receipt.manifest_digest = digest_of(root)
        # It may be replaced at the source meanwhile
        self._origin = replace(self._origin, digest=digest)
        found = self._images = IndexImages(self._context, self._origin, self._receipt)
        images = self._images_of(document, found)
        media_type = json.loads(root).get("mediaType") or OCI_INDEX
        shipment = Shipment([], [(Descriptor(media_type, digest, len(root)), root)], None)
        with self._objects() as objects:
            store = self._context.store
            listed = {one.descriptor.digest: one.descriptor for one in document.instances}
            for digest, descriptor in reversed(listed.items()):
                child = images.get(digest) or listed_documents(
                    objects, store, digest, descriptor.media_type
                )
                shipment = shipment.after(child)
            return with_referrers(objects, store, shipment) if referrers else shipment

    def _objects(self) -> ObjectFetcher:
        """To be used in a `with` block."""
        return ObjectFetcher(
            self._origin, self._context.store, self._context.options, self._context.show
        )

    def _images_of(self, index: Index, found: IndexImages) -> dict[Digest, Shipment]:
        """The index's images by manifest, pulled.

        Manifests that no platform selects are fetched blob by blob.
        """
        platforms = [
            one.platform for one in index.instances if one.is_image and one.platform is not None
        ]
        images = filter(None, map(found.image, dict.fromkeys(platforms)))
        return {
            one.documents.manifest_digest: shipment_of(self._context.store, one) for one in images
        }

    def repair(self) -> None:
        """Fetch again what the disk has spoilt of any image."""
        if self._images is not None:
            self._images.repair()
