"""Disk usage by image: what each weighs, what others share, by which digests layers were proved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from zchunked.errors import FormatError
from zchunked.findings import Image
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_document
from zchunked.store import Store

Proved = Literal["blob", "diff_id", "both", "mixed"]


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """Bytes of config and layers as listed; None where the manifest is damaged.

    `shared`: of those, what an image with another manifest has too, as blobs or as frames; where
    several others have frames of it, those of the one with most. `proved`: by which digest every
    layer was proved so far, `mixed` where that differs, None where a layer is not proved at all.
    """

    image: Image
    size: int | None
    shared: int | None
    proved: Proved | None


def usage(store: Store) -> list[ImageUsage]:
    """Usage of each image, in the order of `Store.images`."""
    images = store.images()
    listed = {image.manifest: _listed(store, image.manifest) for image in images}
    counts = Counter(digest for blobs in listed.values() if blobs for digest in blobs)
    places = _Places(store, listed)
    found = []
    for image in images:
        blobs = listed[image.manifest]
        if blobs is None:
            found.append(ImageUsage(image, None, None, None))
            continue
        shared = sum(
            one.size if counts[one.digest] > 1 else places.shared(one.digest)
            for one in blobs.values()
        )
        layers = list(blobs.values())[1:]
        found.append(
            ImageUsage(
                image, sum(one.size for one in blobs.values()), shared, _proved(store, layers)
            )
        )
    return found


class _Places:
    """The files in which blobs of images have bytes, and how many."""

    def __init__(
        self, store: Store, listed: Mapping[Digest, Mapping[str, Descriptor] | None]
    ) -> None:
        self._owners: dict[str, set[Digest]] = {}
        for manifest, blobs in listed.items():
            for digest in blobs or ():
                self._owners.setdefault(digest, set()).add(manifest)
        self._by_blob: dict[str, dict[str, int]] = {}
        self._by_file: dict[str, dict[str, int]] = {}
        for blob, file, count in store.places():
            if blob in self._owners:
                self._by_blob.setdefault(blob, {})[file] = count
                self._by_file.setdefault(file, {})[blob] = count

    def shared(self, blob: Digest) -> int:
        """Bytes of a blob of one image that another image has in the same files."""
        found = 0
        for file, count in self._by_blob.get(blob, {}).items():
            others = [
                its
                for other, its in self._by_file[file].items()
                if self._owners[other] != self._owners[blob]
            ]
            found += min(count, max(others, default=0))
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
