"""Images as one tar stream: an OCI layout in a tar, and the form that `docker load` and `podman load` read."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from typing import Protocol

import msgspec

from zchunked.export.layers import layers_of, manifest_of
from zchunked.export.oci_layout import LAYOUT_FILE
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import OCI_INDEX
from zchunked.store import Store
from zchunked.store.images import StoredImage


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


def write_oci_archive(store: Store, image: StoredImage, sink: Sink, tag: str | None) -> Digest:
    """Returns the manifest's digest in the archive."""
    layers = layers_of(store, image)
    manifest, media_type = manifest_of(image, layers)
    entry: dict[str, object] = {"mediaType": media_type, "digest": digest_of(manifest), "size": len(manifest)}
    if tag:
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    tar = _TarWriter(sink)
    for name, data in (("oci-layout", LAYOUT_FILE), ("index.json", index)):
        tar.add(name, len(data), [data])
    done: set[str] = set()
    for data in (manifest, image.config_data):
        tar.add(f"blobs/sha256/{digest_of(data)[7:]}", len(data), [data])
    for layer in layers:
        blob = layer.descriptor
        if blob.digest not in done:
            done.add(blob.digest)
            tar.add(f"blobs/sha256/{blob.digest[7:]}", blob.size, layer.blob())
    tar.finish()
    return digest_of(manifest)


def write_docker_archive(store: Store, image: StoredImage, sink: Sink, tag: str | None) -> None:
    """`tag` is a whole reference, what the image is called after loading; None leaves it nameless."""
    layers = layers_of(store, image)
    config = image.documents.manifest.config.digest[7:] + ".json"
    names = [f"{layer.diff_id[7:]}.tar" for layer in layers]
    listing = [{"Config": config, "RepoTags": [tag] if tag else None, "Layers": names}]
    tar = _TarWriter(sink)
    manifest = msgspec.json.encode(listing)
    tar.add("manifest.json", len(manifest), [manifest])
    tar.add(config, len(image.config_data), [image.config_data])
    done: set[str] = set()
    for name, layer in zip(names, layers, strict=True):
        if name not in done:
            done.add(name)
            tar.add(name, layer.tar_size, layer.tar())
    tar.finish()
