"""Deliver a converted image to TARGET: a registry, a layout, a bucket or an archive."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import get_args

from zchunked.export.check import check_target
from zchunked.export.destination import Transport, parse_destination, parse_target
from zchunked.export.publisher import Publisher
from zchunked.export.shipment import Shipment, shipment_of
from zchunked.export.write import export, export_shipment
from zchunked.oci.reference import ImageReference, Reference, parse_image
from zchunked.operations.context import Context
from zchunked.operations.uploads.publishing import target_of
from zchunked.operations.uploads.uploading import (
    for_source,
    mounted_from,
    open_uploads,
    pusher_of,
    registry_target,
    resumable,
    uploaded_by,
)
from zchunked.push.push import Pusher
from zchunked.results import Uploaded
from zchunked.store.images import StoredImage

_BUCKETS = ("s3", "gs", "az")


class Delivery:
    """Delivers to TARGET, as it was typed.

    Making one raises UsageError or LocalError where nothing could be brought there. Make it before
    any file is opened: a descriptor that is closed now may become one of those.
    """

    def __init__(self, target: str, *, force: bool = False, offline: bool = False) -> None:
        """`force`: what is there and no image may be lost. `offline`: a registry is refused."""
        self._target, self._force = target, force
        self._scheme = target.partition(":")[0]
        self._pusher: Pusher | None = None
        self._registry: Reference | None = None
        if self._scheme in _BUCKETS:
            parse_target(target)
        elif self._is_local:
            check_target(parse_destination(target), force=force)
        else:
            self._registry = registry_target(target, offline=offline)

    @property
    def _is_local(self) -> bool:
        """Whether TARGET is a path of a form that keeps layers as they are."""
        return self._scheme in get_args(Transport) and self._scheme != "docker-archive"

    @property
    def uploaded(self) -> Uploaded | None:
        """What went up to a registry so far; None before that, and for any other target."""
        return None if self._pusher is None else uploaded_by(self._pusher)

    @property
    def stored_name(self) -> str | None:
        """The name by which the image can be pulled from TARGET; None for an archive."""
        is_pulled = not self._is_local or self._scheme == "oci"
        return str(parse_image(self._target)) if is_pulled else None

    def for_source(self, context: Context, source: ImageReference) -> Context:
        """The context to pull the image with: its layers whole, credentials for TARGET left out."""
        if self._registry is not None:
            context = for_source(context, source, self._registry)
        options = context.options
        return replace(context, options=replace(options, gaps=replace(options.gaps, exact=True)))

    def image(self, context: Context, image: StoredImage) -> None:
        """Deliver one image."""
        if self._is_local:
            export(context.store, image, parse_destination(self._target), force=self._force)
        else:
            self._send(context, shipment_of(context.store, image), image.name)

    def index(self, context: Context, shipment: Shipment, name: str) -> None:
        """Deliver an index and its images; `name` is what the source was called."""
        if self._is_local and self._scheme != "oci":
            export_shipment(name, shipment, parse_destination(self._target), force=self._force)
        else:
            self._send(context, shipment, name)

    def _send(self, context: Context, shipment: Shipment, name: str) -> None:
        options, reference = context.options, self._registry
        if reference is None:
            to = parse_target(self._target)
            with closing(target_of(context, to)) as target:
                publisher = Publisher(
                    target, jobs=options.jobs, patience=options.patience, show=context.show
                )
                publisher.run(shipment, to.tag or parse_image(name).tag)
            return
        mounted = mounted_from(parse_image(name), reference)
        with closing(open_uploads(context, reference, context.traffic(), mounted)) as registry:
            self._pusher = pusher_of(context, registry, mounted)
            with resumable(self._pusher):
                self._pusher.run(shipment, reference.tag)
