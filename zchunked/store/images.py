"""Images in the store: the documents of one, and the look-up of one by the name it was pulled under."""

from __future__ import annotations

from dataclasses import dataclass

from zchunked.errors import NotFoundError
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Config, Manifest, parse_config, parse_document
from zchunked.oci.platform import Platform
from zchunked.store.store import Store


@dataclass(frozen=True, slots=True)
class ImageDocuments:
    """`root` is the digest of what the reference names: the manifest itself, or an index around it."""

    root: Digest
    manifest_digest: Digest
    manifest_data: bytes
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class StoredImage:
    """What an export needs to know."""

    name: str
    documents: ImageDocuments
    config_data: bytes
    config: Config


def load(store: Store, name: str, digest: Digest | None, platform: Platform | None) -> StoredImage:
    """A pulled image by the name it was pulled under. NotFoundError unless all of it is here and proved."""
    fitting = [
        image
        for image in store.images()
        if image.name == name
        and (platform is None or image.platform == str(platform))
        and digest in (None, image.root, image.manifest)
    ]
    if not fitting:
        raise NotFoundError(f"{name} is not in the store; pull it first (zpull images lists what is here)")
    found = fitting[0]
    data = store.document(found.manifest)
    manifest = parse_document(data) if data is not None else None
    if data is None or not isinstance(manifest, Manifest):
        raise NotFoundError(f"the manifest of {name} is damaged in the store; pull the image again")
    config_data = store.get(manifest.config.digest, manifest.config.size)
    if config_data is None:
        raise NotFoundError(f"the config of {name} is damaged in the store; pull the image again")
    config = parse_config(config_data, len(manifest.layers))
    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        if store.proof(layer.digest, diff_id) is None:
            raise NotFoundError(f"layer {layer.digest} of {name} is not complete in the store; pull the image again")
    return StoredImage(name, ImageDocuments(found.root, found.manifest, data, manifest), config_data, config)
