"""Bring a stored image elsewhere: complete what the store has of it, then publish it to a directory or bucket."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from zchunked.errors import NotFoundError, UsageError, ZPullError
from zchunked.events import Noted, Pulled
from zchunked.export import DamagedLayerError
from zchunked.export.folder import FolderTarget
from zchunked.export.publisher import Publisher, Sent, Target
from zchunked.export.shipment import is_complete, shipment_of
from zchunked.oci.platform import Platform
from zchunked.oci.reference import ImageReference, LayoutReference
from zchunked.operations.context import Context
from zchunked.operations.pulling import explained, pull_of
from zchunked.pull.objects import ObjectFetcher
from zchunked.pull.pull import Pull
from zchunked.receipt import Export, Receipt, image_bytes
from zchunked.store.images import StoredImage, load


class SourceImage:
    """The source's side of a publication or a push: not opened at all for an image that is complete in the store."""

    def __init__(
        self,
        context: Context,
        reference: ImageReference,
        platform: Platform | None,
        receipt: Receipt,
        stack: ExitStack,
    ) -> None:
        """What is opened is closed with `stack`. `platform`: of the stored image; None takes the newest."""
        # What is shared is the registry's own blobs, so of one that came in parts the rest is fetched.
        options = context.options
        self._context = replace(context, options=replace(options, frugality=replace(options.frugality, exact=True)))
        self._reference, self._platform, self._receipt, self._stack = reference, platform, receipt, stack
        self._work: Pull | None = None

    @property
    def bytes_here(self) -> int:
        return self._work.bytes_here if self._work else self._receipt.bytes.cached

    def complete(self) -> StoredImage:
        """The image with all its blobs whole; what the store has is the image, wherever its tag points by now."""
        image = self._stored()
        if image is None or not is_complete(self._context.store, image):
            image = self._pull(image).run()
            self._context.show(Pulled(image.documents.manifest_digest))
            return image
        self._receipt.platform = str(image.config.platform)
        self._receipt.names(image.documents.root, image.documents.manifest_digest)
        self._receipt.image_id = image.documents.manifest.config.digest
        self._receipt.bytes.image = self._receipt.bytes.cached = image_bytes(image.documents.manifest)
        return image

    def used(self, use: Callable[[StoredImage], None]) -> StoredImage:
        """Complete the image and use it. Where the disk has spoilt it, it is healed and used once more."""
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
            return load(self._context.store, str(self._reference), self._reference.digest, self._platform)
        except NotFoundError:
            return None

    def _pull(self, image: StoredImage | None) -> Pull:
        """One for all that is to be pulled, so that the receipt has it all."""
        if self._work is None:
            context = self._context
            if image is not None:
                context = replace(context, options=replace(context.options, platform=image.config.platform))
            origin = self._stack.enter_context(closing(context.open(self._reference)))
            if image is not None:
                origin = replace(origin, digest=image.documents.root)
            self._work = pull_of(context, origin, self._receipt)
        return self._work


def publish(
    context: Context,
    reference: ImageReference,
    to: LayoutReference,
    typed: str,
    platform: Platform | None,
    receipt: Receipt,
) -> tuple[str, Sent]:
    """An image in the store is published as it is; one that is not is pulled first, whole. `typed`: TARGET's text.

    Returns what the target is called, and what went up.
    """
    sent = Sent()
    with closing(target_of(context, to)) as target, ExitStack() as stack:
        work = SourceImage(context, reference, platform, receipt, stack)

        def bring(image: StoredImage) -> None:
            nonlocal sent
            publisher = _publisher(context, target, receipt)
            sent = publisher.sent
            publisher.run(shipment_of(context.store, image), to.tag)

        try:
            with explained(receipt, lambda: work.bytes_here):
                image = work.used(bring)
        except ZPullError as error:
            error.sent = sent
            raise
        receipt.exports.append(Export(typed, image.documents.manifest_digest))
        return target.name, sent


def _publisher(context: Context, target: Target, receipt: Receipt) -> Publisher:
    options, left = context.options, context.options.bounds.deadline
    if left is not None:
        left = max(0.0, left - receipt.seconds)
    return Publisher(target, jobs=options.jobs, patience=options.patience, show=context.show, deadline=left)


def target_of(context: Context, to: LayoutReference) -> Target:
    """The caller closes it."""
    if to.scheme == "oci":
        return FolderTarget(Path(to.base))
    options = context.options
    if options.offline:
        raise UsageError(f"{to.name} is behind a network, which --offline forbids; publish to a directory")
    from zchunked.sources.objects.bucket_target import open_bucket_target  # noqa: PLC0415 - an extra

    is_patient = options.patience.patience > 0
    return open_bucket_target(to, context.network(context.traffic()), is_patient=is_patient)
