"""Push a whole index: every image and object that it lists, and the index last, byte for byte."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from zchunked.errors import DamagedLayerError
from zchunked.events import Noted
from zchunked.oci.reference import ImageReference, Reference
from zchunked.operations.context import Context
from zchunked.operations.pulling import explained
from zchunked.operations.uploads.index_source import IndexSource
from zchunked.operations.uploads.pushing import push
from zchunked.operations.uploads.uploading import (
    for_source,
    mounted_from,
    open_uploads,
    pusher_of,
    resumable,
    uploaded_by,
)
from zchunked.receipt import Receipt
from zchunked.results import PushResult


def push_all(
    context: Context,
    reference: ImageReference,
    target: Reference,
    receipt: Receipt,
    *,
    mount_from: Sequence[str] = (),
    referrers: bool = False,
) -> PushResult:
    """Push the index that SOURCE names, unchanged, with all it lists; or a manifest.

    `receipt` sums up the pulls of all images. An error that leaves carries it, and `uploaded`, what
    went up.
    """
    began = time.monotonic()
    options = context.options
    context = replace(context, options=replace(options, gaps=replace(options.gaps, exact=True)))
    source = for_source(context, reference, target)
    with closing(source.open(reference, context.traffic())) as origin:
        index_source = IndexSource(source, origin, receipt)
        with explained(receipt, lambda: receipt.bytes.cached):
            shipment = index_source.shipment(referrers=referrers)
        if shipment is None:
            return push(
                context,
                reference,
                target,
                None,
                receipt,
                mount_from=mount_from,
                referrers=referrers,
            )
        traffic, mounted = context.traffic(), mounted_from(reference, target, mount_from)
        with (
            closing(open_uploads(context, target, traffic, mounted)) as registry,
            explained(receipt, lambda: 0),
        ):
            pusher = pusher_of(context, registry, mounted)
            with resumable(pusher):
                try:
                    pusher.run(shipment, target.tag)
                except DamagedLayerError as damage:
                    context.show(Noted(f"{damage}; doing that now"))
                    index_source.repair()
                    pusher = pusher_of(context, registry, mounted)
                    pusher.run(shipment, target.tag)
    seconds = round(time.monotonic() - began, 3)
    digest = receipt.manifest_digest or ""
    return PushResult(
        str(target), digest, uploaded_by(pusher), traffic.requests, pusher.retries, seconds, receipt
    )
