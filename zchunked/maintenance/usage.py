"""What each stored image weighs, what of it other images list too, and which digests its layers were proved by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from zchunked.errors import FormatError
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_document
from zchunked.store import Image, Store

Proved = Literal["blob", "diff_id", "both", "mixed"]


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """Bytes of config and layers as listed; None where the manifest is damaged.

    `shared`: of those, in blobs that an image with another manifest lists too. `proved`: by which digest every layer
    was proved so far, `mixed` where that differs, None where a layer is not proved at all.
    """

    image: Image
    size: int | None
    shared: int | None
    proved: Proved | None


def usage(store: Store) -> list[ImageUsage]:
    """In the order of `Store.images`."""
    images = store.images()
    listed = {image.manifest: _listed(store, image.manifest) for image in images}
    counts = Counter(digest for blobs in listed.values() if blobs for digest in blobs)
    found = []
    for image in images:
        blobs = listed[image.manifest]
        if blobs is None:
            found.append(ImageUsage(image, None, None, None))
            continue
        shared = sum(one.size for digest, one in blobs.items() if counts[digest] > 1)
        layers = list(blobs.values())[1:]
        found.append(ImageUsage(image, sum(one.size for one in blobs.values()), shared, _proved(store, layers)))
    return found


def _listed(store: Store, digest: Digest) -> dict[str, Descriptor] | None:
    """The config and then the layers, each once."""
    data = store.document(digest)
    try:
        manifest = parse_document(data) if data is not None else None
    except FormatError:
        return None
    if not isinstance(manifest, Manifest):
        return None
    return {one.digest: one for one in (manifest.config, *manifest.layers)}


def _proved(store: Store, layers: list[Descriptor]) -> Proved | None:
    each = {(store.is_whole(layer.digest), store.is_proved(layer.digest)) for layer in layers}
    if (False, False) in each:
        return None
    if len(each) > 1:
        return "mixed"
    by_blob, by_diff_id = each.pop() if each else (True, True)
    if by_blob and by_diff_id:
        return "both"
    return "blob" if by_blob else "diff_id"
