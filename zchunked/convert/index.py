"""Write an index of converted images of several platforms, marked as container tools mark zstd."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from zchunked.convert.image import ConvertedImage, listed
from zchunked.export.shipment import Shipment, shipment_of
from zchunked.oci.digest import digest_of
from zchunked.oci.documents import OCI_INDEX, ZSTD_INSTANCE, Descriptor, Index, parse_document
from zchunked.oci.platform import Platform
from zchunked.store import Store
from zchunked.store.images import StoredImage


@dataclass(frozen=True, slots=True)
class Converted:
    """One platform's image before and after.

    `entry`: what the old index said of it, nothing where there was none.
    """

    before: StoredImage
    after: ConvertedImage
    entry: dict[str, Any]

    @property
    def is_new(self) -> bool:
        return self.before.documents.manifest_digest != self.after.image.documents.manifest_digest


def platforms_of(root: bytes) -> tuple[list[Platform], int]:
    """The platforms of the images that an index lists, in order, and how much else it lists.

    Of a manifest, and of an empty document: none, and 0.
    """
    document = parse_document(root) if root != b"{}" else None
    if not isinstance(document, Index):
        return [], 0
    images = [one for one in document.instances if one.is_image]
    platforms = dict.fromkeys(one.platform for one in images if one.platform is not None)
    return list(platforms), len(document.instances) - len(images)


def entry_of(root: bytes, image: StoredImage) -> dict[str, Any]:
    """What the index says of one of its images; nothing where the image is not directly in it."""
    document = json.loads(root)
    wanted = image.documents.manifest_digest
    return next((one for one in document.get("manifests") or () if one["digest"] == wanted), {})


def index_document(root: bytes, images: list[Converted], *, keep: bool) -> tuple[Descriptor, bytes]:
    """`root` is the old index, whose annotations stay, or a manifest.

    `keep`: old instances stand before new ones, for tools that know no zstd.
    """
    entries: list[dict[str, Any]] = []
    for one in images:
        if keep and one.is_new:
            entries.append(_entry(one.before, one.entry, {}))
        entries.append(_entry(one.after.image, one.entry, {ZSTD_INSTANCE: "true"}))
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    old = json.loads(root)
    if "manifests" in old and old.get("annotations"):
        document["annotations"] = old["annotations"]
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Descriptor(OCI_INDEX, digest_of(data), len(data)), data


def index_shipment(store: Store, root: bytes, images: list[Converted], *, keep: bool) -> Shipment:
    """The index as `index_document` makes it, and all that it lists; it is in the store then."""
    descriptor, data = index_document(root, images, keep=keep)
    store.put(data)
    shipment = Shipment([], [(descriptor, data)], None)
    for one in reversed(images):
        shipment = shipment.after(shipment_of(store, one.after.image))
        if keep and one.is_new:
            shipment = shipment.after(shipment_of(store, one.before))
    return shipment


def _entry(image: StoredImage, old: dict[str, Any], marks: dict[str, str]) -> dict[str, Any]:
    documents = image.documents
    manifest = Descriptor(
        documents.manifest.media_type, documents.manifest_digest, len(documents.manifest_data)
    )
    platform = image.config.platform
    shown = {"architecture": platform.architecture, "os": platform.os, "variant": platform.variant}
    annotations = {**(old.get("annotations") or {}), **marks}
    entry = listed(manifest) | {
        "platform": old.get("platform") or {key: x for key, x in shown.items() if x}
    }
    return entry | ({"annotations": annotations} if annotations else {})
