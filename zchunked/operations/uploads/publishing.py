"""Publish an image to a directory or bucket: pull what is missing, then send what it lacks."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from zchunked.errors import UsageError, ZPullError
from zchunked.export.files.folder import FolderTarget
from zchunked.export.publisher import Publisher, Sent, Target
from zchunked.export.shipment import shipment_of
from zchunked.oci.platform import Platform
from zchunked.oci.reference import ImageReference, LayoutReference
from zchunked.operations.context import Context
from zchunked.operations.pulling import explained
from zchunked.operations.uploads.source_image import SourceImage
from zchunked.receipt import Export, Receipt
from zchunked.store.images import StoredImage


def publish(
    context: Context,
    reference: ImageReference,
    to: LayoutReference,
    typed: str,
    platform: Platform | None,
    receipt: Receipt,
) -> tuple[str, Sent]:
    """Publish an image; what the store lacks is pulled first, whole. `typed`: TARGET's text.

    Returns what the target is called, and what went up.
    """
    sent = Sent()
    with closing(target_of(context, to)) as target, ExitStack() as stack:
        source_image = SourceImage(context, reference, platform, receipt, stack)

        def send(image: StoredImage) -> None:
            nonlocal sent
            publisher = _publisher(context, target, receipt)
            sent = publisher.sent
            publisher.run(shipment_of(context.store, image), to.tag)

        try:
            with explained(receipt, lambda: source_image.bytes_here):
                image = source_image.used(send)
        except ZPullError as error:
            error.sent = sent
            raise
        receipt.exports.append(Export(typed, image.documents.manifest_digest))
        return target.name, sent


def _publisher(context: Context, target: Target, receipt: Receipt) -> Publisher:
    options, left = context.options, context.options.stall_limits.deadline
    if left is not None:
        left = max(0.0, left - receipt.seconds)
    return Publisher(
        target, jobs=options.jobs, patience=options.patience, show=context.show, deadline=left
    )


def target_of(context: Context, to: LayoutReference) -> Target:
    """The caller closes it."""
    if to.scheme == "oci":
        return FolderTarget(Path(to.base))
    options = context.options
    if options.offline:
        raise UsageError(
            f"{to.name} is behind a network, which --offline forbids; publish to a directory"
        )
    from zchunked.sources.objects.bucket_target import open_bucket_target  # noqa: PLC0415 - an extra

    is_patient = options.patience.patience > 0
    return open_bucket_target(to, context.network(context.traffic()), is_patient=is_patient)
