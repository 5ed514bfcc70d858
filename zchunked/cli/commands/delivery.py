"""Where a converted image goes: a registry, a layout, a bucket or an archive."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass, field
from typing import get_args

from zchunked.cli.commands.push import told
from zchunked.cli.commands.wiring import context_of
from zchunked.cli.progress import Progress
from zchunked.cli.settings import Settings
from zchunked.export import check_target, export, parse_destination
from zchunked.export.destination import Transport, parse_target
from zchunked.export.publisher import Publisher
from zchunked.export.shipment import Shipment, shipment_of
from zchunked.export.write import export_shipment
from zchunked.oci.reference import Reference, parse_image
from zchunked.operations.pushing import (
    mounted_from,
    open_uploads,
    pusher_of,
    registry_target,
    resumable,
    uploaded_by,
)
from zchunked.operations.sharing import target_of
from zchunked.push.push import Pusher
from zchunked.store import Store
from zchunked.store.images import StoredImage

_BUCKETS = ("s3", "gs", "az")


@dataclass(slots=True)
class Delivery:
    """To TARGET, as it was typed. Making one raises UsageError or LocalError where nothing could be brought there."""

    settings: Settings
    pusher: Pusher | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.is_bucket:
            parse_target(self.settings.target)
        elif self.is_local:
            check_target(parse_destination(self.settings.target), force=self.settings.force)
        else:
            self.registry()

    @property
    def _scheme(self) -> str:
        return self.settings.target.partition(":")[0]

    @property
    def is_local(self) -> bool:
        """Whether TARGET is a path."""
        return self._scheme in get_args(Transport)

    @property
    def is_bucket(self) -> bool:
        return self._scheme in _BUCKETS

    @property
    def is_stdout(self) -> bool:
        return self.is_local and parse_destination(self.settings.target).is_stdout

    def image(self, store: Store, image: StoredImage, progress: Progress) -> None:
        """One image."""
        if self.is_local:
            export(store, image, parse_destination(self.settings.target), force=self.settings.force)
        else:
            self._ship(store, shipment_of(store, image), image.name, progress)

    def index(self, store: Store, shipment: Shipment, name: str, progress: Progress) -> None:
        """An index and its images; `name` is what the source was called."""
        if self.is_local and self._scheme != "oci":
            export_shipment(name, shipment, parse_destination(self.settings.target), force=self.settings.force)
        else:
            self._ship(store, shipment, name, progress)

    def _ship(self, store: Store, shipment: Shipment, name: str, progress: Progress) -> None:
        options = self.settings.options
        if self.is_local or self.is_bucket:
            to = parse_target(self.settings.target)
            with closing(target_of(context_of(self.settings, store, progress), to)) as target:
                publisher = Publisher(target, jobs=options.jobs, patience=options.patience, show=progress)
                publisher.run(shipment, to.tag or parse_image(name).tag)
            return
        reference, context = self.registry(), context_of(self.settings, store, progress)
        mounted = mounted_from(parse_image(self.settings.image), reference)
        with closing(open_uploads(context, reference, context.traffic(), mounted)) as registry:
            self.pusher = pusher_of(context, registry, mounted)
            with resumable(self.pusher):
                self.pusher.run(shipment, reference.tag)

    def registry(self) -> Reference:
        """TARGET as a registry's reference. UsageError where it is none."""
        return registry_target(self.settings.target, offline=self.settings.options.offline)

    @property
    def stored_name(self) -> str | None:
        """What the store may call the image: the name by which it could be pulled from TARGET."""
        is_pulled = not self.is_local or self._scheme == "oci"
        return str(parse_image(self.settings.target)) if is_pulled else None

    def tell(self) -> None:
        """What went over the network."""
        if self.pusher is not None:
            print(f"zpull: {told(uploaded_by(self.pusher), self.registry().name)}", file=sys.stderr)
