"""Writes a stored image to a destination."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from zchunked.errors import LocalError, UsageError
from zchunked.export.archives import is_archive, write_docker_archive, write_oci_archive, write_shipment
from zchunked.export.atomic import local_errors
from zchunked.export.destination import Destination
from zchunked.export.folder import is_free, is_layout, taken
from zchunked.export.names import names_of
from zchunked.export.oci_layout import write_layout
from zchunked.export.shipment import Shipment
from zchunked.export.stage import Stage
from zchunked.export.targets import descriptor_of, is_regular, opened, real_path
from zchunked.oci.digest import Digest
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
    tell: Callable[[str], None] = lambda _: None,
) -> Export:
    """The target is absent or complete afterwards; a stream has what it got. LocalError, IntegrityError.

    `stage`: where parts of a new layout are, if it is this one's. `force`: what is there may be lost. `tell` is told
    when other writers are waited for.
    """
    check_target(to, force=force)
    names = names_of(image.name, to.tag, is_whole=to.transport == "docker-archive")
    digest: Digest | None = None
    if to.transport == "oci":
        ours = stage if stage is not None and stage.target == to.path else None
        digest = write_layout(store, image, to.path, names, stage=ours, force=force, tell=tell)
    else:
        with local_errors(f"cannot write {to.path}"), _sink(to) as sink:
            if to.transport == "oci-archive":
                digest = write_oci_archive(store, image, sink, names)
            else:
                write_docker_archive(store, image, sink, names)
    return Export(to.text, digest)


def export_shipment(store_name: str, shipment: Shipment, to: Destination, *, force: bool = False) -> Export:
    """The same of an index and the images that it lists, into an archive. `store_name` as `StoredImage.name`."""
    check_target(to, force=force)
    if to.transport != "oci-archive":
        raise UsageError(f"{to.transport}: has no room for an index; want oci:, oci-archive: or a registry")
    with local_errors(f"cannot write {to.path}"), _sink(to) as sink:
        return Export(to.text, write_shipment(shipment, sink, names_of(store_name, to.tag)))


def check_target(to: Destination, *, force: bool = False) -> None:
    """LocalError where `export` would fail at once, or destroy what is no image; to be known before anything is pulled.

    It must be called before the process opens files of its own: a closed descriptor may become one of those.
    """
    path = to.path
    with local_errors(f"cannot write {path}"):
        if to.transport == "oci":
            if not (force or is_layout(path) or is_free(path)):
                raise taken(path, "OCI layout")
        elif to.is_stdout:
            os.fstat(1)
        elif (descriptor := descriptor_of(path)) is not None:
            os.fstat(descriptor)
        elif real_path(path).is_dir():
            raise LocalError(f"{path} is a folder; want the name of a file")
        elif is_regular(path) and not force and path.stat().st_size and not is_archive(path):
            raise taken(path, "image archive")


@contextmanager
def _sink(to: Destination) -> Iterator[IO[bytes]]:
    if not to.is_stdout:
        with opened(to.path) as file:
            if file.isatty():
                raise LocalError(f"will not write an archive to the terminal {to.path}")
            yield file
        return
    if sys.stdout is None:
        raise LocalError("standard output is closed, and the archive has to go there")
    if sys.stdout.isatty():
        raise LocalError("will not write an archive to a terminal; redirect standard output")
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
