"""What goes to a target: blobs, then the documents that list them, the tagged one last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from zchunked.errors import NotFoundError
from zchunked.export.images.layers import layers_of
from zchunked.oci.documents import Descriptor
from zchunked.oci.platform import Platform
from zchunked.sources.layout import blob_path
from zchunked.store import Store
from zchunked.store.images import StoredImage

Pieces = Iterable[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Parcel:
    """One blob. `pieces` gives its bytes from an offset on."""

    blob: Descriptor
    pieces: Callable[[int], Pieces]

    @property
    def path(self) -> str:
        """Where a layout has it."""
        return blob_path(self.blob.digest)

    @classmethod
    def of(cls, blob: Descriptor, data: bytes) -> Parcel:
        return cls(blob, lambda at: [data[at:]])


@dataclass(frozen=True, slots=True)
class Shipment:
    """`documents`: manifests and indexes, each after what it lists.

    `platform`: of the last, where it is one image.
    """

    parcels: list[Parcel]
    documents: list[tuple[Descriptor, bytes]]
    platform: Platform | None

    def after(self, other: Shipment) -> Shipment:
        """Both, with this one's root last."""
        return Shipment(
            [*other.parcels, *self.parcels], [*other.documents, *self.documents], self.platform
        )

    @property
    def root(self) -> Descriptor:
        return self.documents[-1][0]


def is_complete(store: Store, image: StoredImage) -> bool:
    """Whether every layer's own blob is whole in the store, not only what is in it."""
    return all(store.is_whole(layer.digest) for layer in image.documents.manifest.layers)


def shipment_of(store: Store, image: StoredImage) -> Shipment:
    """An image as the registry has it. Raises NotFoundError where a layer is here in parts only.

    A layer's bytes are verified when all of them are read, from the beginning; DamagedLayerError
    when they are wrong.
    """
    parcels: dict[str, Parcel] = {}
    for layer in layers_of(store, image):
        if not layer.is_whole:
            raise NotFoundError(
                f"layer {layer.layer.digest} is stored in parts only; pull the image with --exact"
            )
        parcels[layer.layer.digest] = Parcel(layer.layer, layer.blob_from)
    documents = image.documents
    config = documents.manifest.config
    parcels[config.digest] = Parcel.of(config, image.config_data)
    manifest = Descriptor(
        documents.manifest.media_type, documents.manifest_digest, len(documents.manifest_data)
    )
    return Shipment(
        [*parcels.values()], [(manifest, documents.manifest_data)], image.config.platform
    )
