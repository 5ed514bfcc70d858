"""Complete an image in the store, so that its files can be listed and read."""

from __future__ import annotations

from contextlib import closing

from zchunked.errors import NotFoundError
from zchunked.oci.platform import Platform
from zchunked.oci.reference import ImageReference
from zchunked.operations.context import Context
from zchunked.operations.pulling import ImagePull
from zchunked.receipt import Receipt
from zchunked.store.images import StoredImage, load


def image_in_store(
    context: Context, reference: ImageReference, platform: Platform | None
) -> StoredImage:
    """The image as the store has it, otherwise pulled. Raises as a pull does.

    `platform`: of the stored image; None takes the newest.
    """
    store = context.store
    try:
        image = load(store, str(reference), reference.digest, platform)
    except NotFoundError:
        image = None
    if image is not None:
        layers = zip(image.documents.manifest.layers, image.config.diff_ids, strict=True)
        if all(store.is_pulled(layer.digest, diff_id) for layer, diff_id in layers):
            return image
    with closing(ImagePull(context, reference, (), Receipt(str(reference)))) as image_pull:
        image_pull.fetch()
        return image_pull.deliver(force=False)
