"""Layers of a stored image for export: the registry's blob if it is whole, else the plain tar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import msgspec

from zchunked.download.workers import prefetched
from zchunked.errors import DamagedLayerError, FormatError, IntegrityError
from zchunked.layers.metadata import read_index_and_tarsplit
from zchunked.layers.proof import is_intact, proving, tar_of_blob
from zchunked.layers.rebuild import Rebuild
from zchunked.oci.digest import Digest, verified
from zchunked.oci.documents import OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST, Descriptor
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.images import StoredImage

_GZIP = b"\x1f\x8b"
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257


@dataclass(frozen=True, slots=True)
class LayerContent:
    """One layer of a stored image. `is_whole`: its blob is the registry's own.

    `on_read` is given how many bytes of the whole blob were read to make its tar, on whatever
    thread reads them.
    """

    store: Store
    layer: Descriptor
    diff_id: Digest
    is_whole: bool
    on_read: Callable[[int], None] | None = None

    @property
    def tar_size(self) -> int:
        """Bytes of the tar. The first call proves the diff ID, unless it was proved.

        Raises UnprovedError or FormatError when it is not that tar, DamagedLayerError.
        """
        size = self.store.proof(self.layer.digest, self.diff_id)
        if size is None:
            size = prove_diff_id(self.store, self.layer, self.diff_id)
        return size

    @property
    def descriptor(self) -> Descriptor:
        """What an OCI layout lists."""
        return (
            self.layer if self.is_whole else Descriptor(OCI_LAYER_TAR, self.diff_id, self.tar_size)
        )

    @property
    def is_readable_by_old_docker(self) -> bool:
        """Whether docker before 23 (Debian 12 has 20.10) unpacks the blob: no zstd."""
        if not self.is_whole or not self.layer.size:
            return True
        try:
            head = self.store.read(
                self.layer.digest, 0, min(self.layer.size, _TAR_MAGIC_AT + len(_TAR_MAGIC))
            )
        except IntegrityError as error:
            raise self._damaged(error) from error
        return head.startswith(_GZIP) or head[_TAR_MAGIC_AT:] == _TAR_MAGIC

    def blob(self) -> Iterator[bytes | memoryview]:
        """The bytes of `descriptor`, verified to the last one."""
        if not self.is_whole:
            return self.tar()
        return self._as_damage(
            verified(stored(self.store, self.layer), self.layer.digest, self.layer.size, "its blob")
        )

    def prefetched_blob(self) -> Iterator[bytes | memoryview]:
        """The blob, read and hashed in another thread than the writer's: a fifth faster."""
        return prefetched(self.blob()) if self.is_whole else self.blob()

    def blob_from(self, start: int) -> Iterator[bytes | memoryview]:
        """The blob of a whole layer, from an offset on; verified only from the beginning."""
        if not start:
            return self.blob()
        return self._as_damage(
            self.store.stream(self.layer.digest, ByteRange(start, self.layer.size))
        )

    def tar(self) -> Iterator[bytes | memoryview]:
        """The layer's tar, verified to its last byte; the first one made proves the diff ID."""
        size = self.store.proof(self.layer.digest, self.diff_id)
        if size is None:
            return _proving(self.store, self.layer, self.diff_id, self._watched())
        return self._as_damage(verified(self._unpacked(), self.diff_id, size, "its tar"))

    def _unpacked(self) -> Iterator[bytes]:
        """The tar, unpacked by another thread; its digest is checked, not those of files."""
        if self.is_whole:
            yield from prefetched(tar_of_blob(self._watched(), self.layer))
            return
        index = read_index_and_tarsplit(self.store, self.layer)
        rebuild = Rebuild(self.store, index, self.store.find_chunks(index.own_chunks()))
        yield from prefetched(data for data, _ in rebuild.blocks())

    def _watched(self) -> Iterator[bytes]:
        for piece in stored(self.store, self.layer):
            if self.on_read is not None:
                self.on_read(len(piece))
            yield piece

    def _as_damage(self, pieces: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """The same pieces. The layer was proved once, so any error in it now is damage."""
        try:
            yield from pieces
        except (IntegrityError, FormatError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DamagedLayerError:
        return DamagedLayerError(
            f"layer {self.layer.digest} is damaged in the store ({error}); "
            "run `zpull verify`, then pull the image again"
        )


def stored(store: Store, layer: Descriptor) -> Iterator[bytes]:
    """The blob of a layer that is whole."""
    return store.stream(layer.digest, ByteRange(0, layer.size)) if layer.size else iter(())


def prove_diff_id(store: Store, layer: Descriptor, diff_id: Digest) -> int:
    """Hold the tar in a whole blob against the diff ID, and remember it; returns the tar's size.

    Raises UnprovedError or FormatError when the image lies, DamagedLayerError when the disk does.
    """
    return sum(map(len, _proving(store, layer, diff_id, stored(store, layer))))


def _proving(
    store: Store, layer: Descriptor, diff_id: Digest, blob: Iterator[bytes]
) -> Iterator[bytes]:
    """The tar, on its way to be proved."""
    size = 0
    try:
        with closing(prefetched(tar_of_blob(blob, layer))) as tar:
            for block in proving(tar, layer, diff_id):
                size += len(block)
                yield block
    except (IntegrityError, FormatError) as error:
        if is_intact(store, layer.digest, layer.size):
            raise
        raise DamagedLayerError(
            f"layer {layer.digest} is damaged in the store ({error}); run `zpull verify`, then "
            "pull the image again"
        ) from error
    store.add_proof(layer.digest, diff_id, size)


def layers_of(store: Store, image: StoredImage) -> list[LayerContent]:
    found = []
    for layer, diff_id in zip(image.documents.manifest.layers, image.config.diff_ids, strict=True):
        if not store.is_pulled(layer.digest, diff_id):
            raise DamagedLayerError(
                f"layer {layer.digest} is no longer proved in the store; pull the image again"
            )
        found.append(LayerContent(store, layer, diff_id, store.is_whole(layer.digest)))
    return found


def manifest_of(image: StoredImage, layers: list[LayerContent]) -> tuple[bytes, str]:
    """The registry's own manifest where all layers are, else one of plain tars; its type."""
    documents = image.documents
    if all(layer.is_whole for layer in layers):
        return documents.manifest_data, documents.manifest.media_type
    config = documents.manifest.config
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.size},
        "layers": [_listed(layer) for layer in layers],
    }
    return msgspec.json.encode(document), OCI_MANIFEST


def _listed(layer: LayerContent) -> dict[str, object]:
    descriptor = layer.descriptor
    listed: dict[str, object] = {
        "mediaType": oci_type(descriptor.media_type),
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.annotations:
        listed["annotations"] = dict(descriptor.annotations)
    return listed


def oci_type(media_type: str) -> str:
    """The OCI name of a Docker layer type."""
    if media_type.startswith("application/vnd.docker."):
        return OCI_LAYER_TAR + (
            "+gzip"
            if media_type.endswith("gzip")
            else "+zstd"
            if media_type.endswith("zstd")
            else ""
        )
    return media_type
