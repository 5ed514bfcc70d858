"""Push an image to a registry: pull what is missing, then upload what the registry lacks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

from zchunked.export.shipment import shipment_of
from zchunked.oci.platform import Platform
from zchunked.oci.reference import ImageReference, Reference
from zchunked.operations.context import Context
from zchunked.operations.pulling import explained
from zchunked.operations.uploads.referrers import with_referrers
from zchunked.operations.uploads.source_image import SourceImage
from zchunked.operations.uploads.uploading import (
    for_source,
    mounted_from,
    open_uploads,
    pusher_of,
    resumable,
    uploaded_by,
)
from zchunked.push.push import Pusher
from zchunked.receipt import Receipt
from zchunked.results import PushResult
from zchunked.store.images import StoredImage


def push(
    context: Context,
    reference: ImageReference,
    target: Reference,
    platform: Platform | None,
    receipt: Receipt,
    *,
    mount_from: Sequence[str] = (),
    referrers: bool = False,
) -> PushResult:
    """An image in the store is pushed as it is; one that is not is pulled first, whole.

    An error that leaves carries the receipt, and `uploaded`, what went up.
    """
    began, traffic = time.monotonic(), context.traffic()
    mounted = mounted_from(reference, target, mount_from)
    pushers: list[Pusher] = []
    with closing(open_uploads(context, target, traffic, mounted)) as registry, ExitStack() as stack:
        source_image = SourceImage(
            for_source(context, reference, target), reference, platform, receipt, stack
        )

        def send(image: StoredImage) -> None:
            shipment = shipment_of(context.store, image)
            if referrers:
                with source_image.objects() as objects:
                    shipment = with_referrers(objects, context.store, shipment)
            pushers.append(pusher_of(context, registry, mounted))
            with resumable(pushers[-1]):
                pushers[-1].run(shipment, target.tag)

        with explained(receipt, lambda: source_image.bytes_here):
            source_image.used(send)
    pusher = pushers[-1]
    seconds = round(time.monotonic() - began, 3)
    digest = receipt.manifest_digest or ""
    return PushResult(
        str(target), digest, uploaded_by(pusher), traffic.requests, pusher.retries, seconds, receipt
    )
