"""Write images as one tar: an OCI layout, and the archive that `docker load` reads."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec

from zchunked.export.images.layers import layers_of, manifest_of
from zchunked.export.images.names import Names
from zchunked.export.images.oci_layout import LAYOUT_FILE, index_with
from zchunked.export.shipment import Parcel, Shipment
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import Descriptor
from zchunked.sources.layout import blob_path
from zchunked.store import Store
from zchunked.store.images import StoredImage

_MARKS = {"oci-layout": b"imageLayoutVersion", "manifest.json": b'"Layers"'}
_MARK_BYTES = 4 << 20
_LOOKED_AT = 20_000  # members; other tools put the listing last


class Sink(Protocol):
    def write(self, data: bytes | memoryview, /) -> object: ...


class _TarWriter:
    """Members one after the other, with sizes known beforehand and nothing held."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._written = 0

    def add(self, name: str, size: int, pieces: Iterable[bytes | memoryview]) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        self._write(member.tobuf(tarfile.GNU_FORMAT))
        for piece in pieces:
            self._write(piece)
        self._write(bytes(-size % tarfile.BLOCKSIZE))

    def finish(self) -> None:
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self._written % tarfile.RECORDSIZE))

    def _write(self, data: bytes | memoryview) -> None:
        self._sink.write(data)
        self._written += len(data)


def write_oci_archive(store: Store, image: StoredImage, sink: Sink, names: Names) -> Digest:
    """Write an OCI layout with docker's own listing as a tar. Returns the manifest's digest in it.

    A layer that old docker cannot unpack is there once more as a plain tar, which docker's listing
    names.
    """
    layers = layers_of(store, image)
    manifest, media_type = manifest_of(image, layers)
    listed = Descriptor(media_type, digest_of(manifest), len(manifest))
    index = index_with(None, listed, None, names.tag, "the archive", full_name=names.full)
    for_docker = [
        blob_path(layer.descriptor.digest)
        if layer.is_readable_by_old_docker
        else f"{layer.diff_id[7:]}.tar"
        for layer in layers
    ]
    listing = _listing(blob_path(digest_of(image.config_data)), names, for_docker)
    tar = _TarWriter(sink)
    for name, data in (
        ("oci-layout", LAYOUT_FILE),
        ("index.json", index),
        ("manifest.json", listing),
    ):
        tar.add(name, len(data), [data])
    done: set[str] = set()
    for data in (manifest, image.config_data):
        tar.add(blob_path(digest_of(data)), len(data), [data])
    for layer, other in zip(layers, for_docker, strict=True):
        path = blob_path(layer.descriptor.digest)
        if path not in done:
            tar.add(path, layer.descriptor.size, layer.blob())
        if other not in {*done, path}:
            tar.add(other, layer.tar_size, layer.tar())
        done |= {path, other}
    tar.finish()
    return listed.digest


def write_shipment(shipment: Shipment, sink: Sink, names: Names) -> Digest:
    """Write an index and the images that it lists as an OCI layout in a tar. Returns its digest."""
    index = index_with(
        None, shipment.root, shipment.platform, names.tag, "the archive", full_name=names.full
    )
    parcels = [*(Parcel.of(blob, data) for blob, data in shipment.documents), *shipment.parcels]
    tar = _TarWriter(sink)
    for name, data in (("oci-layout", LAYOUT_FILE), ("index.json", index)):
        tar.add(name, len(data), [data])
    for parcel in {parcel.blob.digest: parcel for parcel in parcels}.values():
        tar.add(blob_path(parcel.blob.digest), parcel.blob.size, parcel.pieces(0))
    tar.finish()
    return shipment.root.digest


def write_docker_archive(store: Store, image: StoredImage, sink: Sink, names: Names) -> None:
    """Without a full name the image is nameless after loading."""
    layers = layers_of(store, image)
    config = image.documents.manifest.config.digest[7:] + ".json"
    paths = [f"{layer.diff_id[7:]}.tar" for layer in layers]
    # proved, all of them, before the first byte is written
    sizes = [layer.tar_size for layer in layers]
    manifest = _listing(config, names, paths)
    tar = _TarWriter(sink)
    tar.add("manifest.json", len(manifest), [manifest])
    tar.add(config, len(image.config_data), [image.config_data])
    done: set[str] = set()
    for path, layer, size in zip(paths, layers, sizes, strict=True):
        if path not in done:
            done.add(path)
            tar.add(path, size, layer.tar())
    tar.finish()


def _listing(config: str, names: Names, layers: list[str]) -> bytes:
    """Docker's `manifest.json`; all are paths in the archive."""
    tags = [names.full] if names.full else None
    return msgspec.json.encode([{"Config": config, "RepoTags": tags, "Layers": layers}])


def is_archive(path: Path) -> bool:
    """Whether a file is a container image archive of any tool, which an export may replace."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in islice(tar, _LOOKED_AT):
                if member.name in _MARKS and member.isreg() and member.size <= _MARK_BYTES:
                    file = tar.extractfile(member)
                    return file is not None and _MARKS[member.name] in file.read()
    except (tarfile.TarError, OSError, ValueError):
        pass
    return False
