"""Images in the store: the documents of one, and finding one by the name it was pulled under."""

from __future__ import annotations

import re

from msgspec import Struct

from zchunked.errors import NotFoundError, UsageError
from zchunked.findings import Image
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import Config, Manifest, parse_config, parse_document
from zchunked.oci.platform import Platform
from zchunked.oci.reference import parse_image
from zchunked.store.store import Store

_DIGEST_BEGINS = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)


class ImageDocuments(Struct, frozen=True):
    """Manifest of an image.

    `root` is the digest of what the reference names: the manifest itself, or an index around it.
    """

    root: Digest
    manifest_digest: Digest
    manifest_data: bytes
    manifest: Manifest


class StoredImage(Struct, frozen=True):
    """What an export needs to know."""

    name: str
    documents: ImageDocuments
    config_data: bytes
    config: Config


def find_name(
    store: Store, text: str, platform: Platform | None = None
) -> tuple[str, Digest | None]:
    """Find an image's name, and its digest where given, by what the user typed.

    That may be the name it was pulled under, `name@digest` as a pull prints it, a digest, or the
    beginning of one. Raises NotFoundError, InvalidReferenceError; UsageError for a beginning that
    several images share.
    """
    images = [
        image for image in store.images() if platform is None or image.platform == str(platform)
    ]
    if any(image.name == text for image in images):
        return text, None
    if beginning := _DIGEST_BEGINS.fullmatch(text):
        found = [image for image in images if _begins(image, beginning[1])]
        if len({image.manifest for image in found}) > 1:
            listed = ", ".join(
                sorted({f"{image.name} ({short(image.manifest)})" for image in found})[:5]
            )
            raise UsageError(f"several images begin with {text}: {listed}; give more digits")
        if found:
            return found[0].name, found[0].manifest
        if text.startswith("sha256:"):
            raise NotFoundError(
                f"no image in the store has the digest {text} (zpull images lists what is there)"
            )
    reference = parse_image(text)
    if reference.digest is not None and not any(image.name == str(reference) for image in images):
        for image in images:
            if (
                reference.digest in (image.manifest, image.root)
                and parse_image(image.name).name == reference.name
            ):
                return image.name, reference.digest
    return str(reference), reference.digest


def find(store: Store, text: str, platform: Platform | None = None) -> list[Image]:
    """All images that `text` names, perhaps of several platforms.

    Raises as `find_name`, NotFoundError where there are none.
    """
    name, digest = find_name(store, text, platform)
    found = [
        image
        for image in store.images()
        if image.name == name
        and (platform is None or image.platform == str(platform))
        and digest in (None, image.root, image.manifest)
    ]
    if not found:
        raise NotFoundError(f"{name} is not in the store (zpull images lists what is stored)")
    return found


def _begins(image: Image, digits: str) -> bool:
    return any(digest.startswith(f"sha256:{digits}") for digest in (image.manifest, image.root))


def load(store: Store, name: str, digest: Digest | None, platform: Platform | None) -> StoredImage:
    """A pulled image by its name. NotFoundError unless all of it is stored and proved."""
    fitting = [
        image
        for image in store.images()
        if image.name == name
        and (platform is None or image.platform == str(platform))
        and digest in (None, image.root, image.manifest)
    ]
    if not fitting:
        raise NotFoundError(
            f"{name} is not in the store; pull it first (zpull images lists what is stored)"
        )
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
        if not store.is_pulled(layer.digest, diff_id):
            raise NotFoundError(
                f"layer {layer.digest} of {name} is not complete in the store; pull the image again"
            )
    return StoredImage(
        name, ImageDocuments(found.root, found.manifest, data, manifest), config_data, config
    )
