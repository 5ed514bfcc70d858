"""Export a stored image, without the network."""

from __future__ import annotations

from collections.abc import Sequence

from zchunked.errors import DamagedLayerError
from zchunked.maintenance.blob_check import reverify
from zchunked.oci.platform import Platform
from zchunked.operations.context import Context
from zchunked.operations.destinations.writing import AnyDestination, check_engines, write
from zchunked.operations.pulling import explained
from zchunked.receipt import Receipt, image_bytes
from zchunked.store.images import find_name, load


def export_stored(
    context: Context,
    image: str,
    platform: Platform | None,
    to: Sequence[AnyDestination],
    *,
    force: bool,
) -> Receipt:
    """`image`: as typed. Raises one ZPullError; a pull repairs a DamagedLayerError."""
    check_engines(to)
    name, digest = find_name(context.store, image, platform)
    stored, receipt = load(context.store, name, digest, platform), Receipt(name)
    documents = stored.documents
    receipt.platform = str(stored.config.platform)
    receipt.names(documents.root, documents.manifest_digest)
    receipt.image_id = documents.manifest.config.digest
    receipt.bytes.image = receipt.bytes.cached = image_bytes(documents.manifest)
    with explained(receipt, lambda: receipt.bytes.image):
        try:
            for destination in to:
                write(context, stored, destination, receipt, force=force)
        except DamagedLayerError:
            # otherwise a pull would find the image complete
            reverify(context.store, documents.manifest.layers)
            raise
    return receipt
