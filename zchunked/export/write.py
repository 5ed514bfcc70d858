"""Writes a stored image to a destination."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from zchunked.errors import LocalError
from zchunked.export.archives import write_docker_archive, write_oci_archive
from zchunked.export.atomic import local_errors, whole_file
from zchunked.export.destination import Destination
from zchunked.export.oci_layout import write_layout
from zchunked.oci.digest import Digest
from zchunked.oci.reference import LayoutReference, parse_image
from zchunked.receipt import Export
from zchunked.store import Store
from zchunked.store.images import StoredImage


def export(store: Store, image: StoredImage, to: Destination) -> Export:
    """The target is absent or complete afterwards; standard output has what it got. LocalError, IntegrityError."""
    tag = to.tag or _tag_of(image.name)
    digest: Digest | None = None
    if to.transport == "oci":
        digest = write_layout(store, image, to.path, tag)
    else:
        with local_errors(f"cannot write {to.path}"), _sink(to) as sink:
            if to.transport == "oci-archive":
                digest = write_oci_archive(store, image, sink, tag)
            else:
                write_docker_archive(store, image, sink, to.tag or _engine_name(image.name))
    return Export(to.text, digest)


def _tag_of(name: str) -> str | None:
    """The tag of `host/repository[:tag][@digest]`, or of a layout."""
    reference = parse_image(name)
    if isinstance(reference, LayoutReference):
        return reference.tag
    name = name.partition("@")[0]
    return name.rpartition(":")[2] if name.rfind(":") > name.rfind("/") else None


def _engine_name(name: str) -> str | None:
    """What an engine may call the image: a registry's reference, which a layout may have kept as its tag."""
    tag = _tag_of(name)
    if not isinstance(parse_image(name), LayoutReference):
        return name if tag else None
    return tag if tag and "/" in tag and ":" in tag.rpartition("/")[2] else None


@contextmanager
def _sink(to: Destination) -> Iterator[IO[bytes]]:
    if not to.is_stdout:
        with whole_file(to.path) as file:
            yield file
        return
    if sys.stdout.isatty():
        raise LocalError("will not write an archive to a terminal; redirect standard output")
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
