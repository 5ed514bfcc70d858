"""Write a stored image somewhere, without the network."""

from __future__ import annotations

from collections.abc import Sequence

from zchunked.events import Noted, Warned
from zchunked.export import Destination, export
from zchunked.oci.platform import Platform
from zchunked.operations.context import Context
from zchunked.operations.pulling import explained
from zchunked.receipt import Receipt, image_bytes
from zchunked.store.images import find_name, load


def export_stored(
    context: Context, image: str, platform: Platform | None, to: Sequence[Destination], *, force: bool
) -> Receipt:
    """`image`: as a person calls it. Raises one ZPullError."""
    name, digest = find_name(context.store, image, platform)
    stored, receipt = load(context.store, name, digest, platform), Receipt(name)
    documents = stored.documents
    receipt.platform = str(stored.config.platform)
    receipt.names(documents.root, documents.manifest_digest)
    receipt.image_id = documents.manifest.config.digest
    receipt.bytes.image = receipt.bytes.cached = image_bytes(documents.manifest)
    tell = lambda text: context.show(Noted(text))  # noqa: E731
    with explained(receipt, lambda: receipt.bytes.image):
        for destination in to:
            if warning := receipt.exported(export(context.store, stored, destination, force=force, tell=tell)):
                context.show(Warned(warning))
    return receipt
