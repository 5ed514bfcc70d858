"""Have an image whole in the store, pulled if needed, to publish or push it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace

from zchunked.errors import DamagedLayerError, NotFoundError
from zchunked.events import Noted, Pulled
from zchunked.export.shipment import is_complete
from zchunked.oci.platform import Platform
from zchunked.oci.reference import ImageReference
from zchunked.operations.context import Context
from zchunked.operations.pulling import pull_of
from zchunked.pull.objects.fetcher import ObjectFetcher
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt, image_bytes
from zchunked.store.images import StoredImage, load


class SourceImage:
    """The image to publish or push. Its source is not opened where the store has all of it."""

    def __init__(
        self,
        context: Context,
        reference: ImageReference,
        platform: Platform | None,
        receipt: Receipt,
        stack: ExitStack,
    ) -> None:
        """`stack` closes what is opened. `platform`: of the stored image; None takes the newest."""
        # What is shared is the registry's own blobs, so of one that was pulled in parts the rest is
        # fetched.
        options = context.options
        self._context = replace(
            context, options=replace(options, gaps=replace(options.gaps, exact=True))
        )
        self._reference, self._platform = reference, platform
        self._receipt, self._stack = receipt, stack
        self._work: Pull | None = None

    @property
    def bytes_here(self) -> int:
        return self._work.bytes_here if self._work else self._receipt.bytes.cached

    def complete(self) -> StoredImage:
        """The image with all blobs whole; a stored image is used, wherever its tag points now."""
        image = self._stored()
        if image is None or not is_complete(self._context.store, image):
            image = self._pull(image).run()
            self._context.show(Pulled(image.documents.manifest_digest))
            return image
        self._receipt.platform = str(image.config.platform)
        self._receipt.names(image.documents.root, image.documents.manifest_digest)
        self._receipt.image_id = image.documents.manifest.config.digest
        self._receipt.bytes.image = self._receipt.bytes.cached = image_bytes(
            image.documents.manifest
        )
        return image

    def used(self, use: Callable[[StoredImage], None]) -> StoredImage:
        """Complete the image and use it; once more after a repair, where the disk damaged it."""
        image = self.complete()
        try:
            use(image)
        except DamagedLayerError as damage:
            self._context.show(Noted(f"{damage}; doing that now"))
            image = self._pull(image).repair(image)
            self._context.show(Pulled(image.documents.manifest_digest))
            use(image)
        return image

    def objects(self) -> ObjectFetcher:
        """What else the source's repository has; to be used in a `with` block."""
        context = self._context
        origin = self._stack.enter_context(closing(context.open(self._reference)))
        return ObjectFetcher(origin, context.store, context.options, context.show)

    def _stored(self) -> StoredImage | None:
        try:
            return load(
                self._context.store, str(self._reference), self._reference.digest, self._platform
            )
        except NotFoundError:
            return None

    def _pull(self, image: StoredImage | None) -> Pull:
        """One for all that is to be pulled, so that the receipt has it all."""
        if self._work is None:
            context = self._context
            if image is not None:
                context = replace(
                    context, options=replace(context.options, platform=image.config.platform)
                )
            origin = self._stack.enter_context(closing(context.open(self._reference)))
            if image is not None:
                origin = replace(origin, digest=image.documents.root)
            self._work = pull_of(context, origin, self._receipt)
        return self._work
