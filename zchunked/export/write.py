"""Write a stored image, or an index with its images, to a destination."""

from __future__ import annotations

from collections.abc import Callable

from zchunked.errors import UsageError
from zchunked.export.check import check_target
from zchunked.export.destination import Destination
from zchunked.export.files.sink import open_sink
from zchunked.export.files.stage import Stage
from zchunked.export.images.archives import write_docker_archive, write_oci_archive, write_shipment
from zchunked.export.images.names import names_of
from zchunked.export.images.oci_layout import write_layout
from zchunked.export.shipment import Shipment
from zchunked.receipt import Export
from zchunked.store import Store
from zchunked.store.images import StoredImage


def export(
    store: Store,
    image: StoredImage,
    to: Destination,
    *,
    stage: Stage | None = None,
    force: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Export:
    """Write the image. The target is absent or complete afterwards; a stream has what it got.

    `stage`: where parts of a new layout are, if it is this one's. `force`: what is there may be
    lost. `report` is called when it waits for other writers.
    """
    check_target(to, force=force)
    names = names_of(image.name, to.tag, is_whole=to.transport == "docker-archive")
    if to.transport == "oci":
        ours = stage if stage is not None and stage.target == to.path else None
        digest = write_layout(store, image, to.path, names, stage=ours, force=force, report=report)
        return Export(to.text, digest)
    with open_sink(to) as sink:
        if to.transport == "oci-archive":
            return Export(to.text, write_oci_archive(store, image, sink, names))
        write_docker_archive(store, image, sink, names)
        return Export(to.text, None)


def export_shipment(
    store_name: str, shipment: Shipment, to: Destination, *, force: bool = False
) -> Export:
    """Write an index and the images that it lists into an archive.

    `store_name` as `StoredImage.name`.
    """
    check_target(to, force=force)
    if to.transport != "oci-archive":
        raise UsageError(
            f"{to.transport}: has no room for an index; expected oci:, oci-archive: or a registry"
        )
    with open_sink(to) as sink:
        return Export(to.text, write_shipment(shipment, sink, names_of(store_name, to.tag)))
