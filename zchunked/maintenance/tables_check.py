"""Check stored TOCs and tar-splits by what the images of the store say of them; drop the damage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError
from zchunked.findings import Image
from zchunked.formats.annotations import locate
from zchunked.layers.metadata import read_index_and_tarsplit
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_config, parse_document
from zchunked.ranges import ByteRange
from zchunked.store import Store


def listed_layers(
    store: Store, images: Iterable[Image]
) -> Iterator[tuple[Descriptor, Digest | None]]:
    """The layers that images list, with their diff IDs where the config is stored."""
    for image in images:
        data = store.document(image.manifest)
        manifest = parse_document(data) if data is not None else None
        if isinstance(manifest, Manifest):
            config = store.get(manifest.config.digest, manifest.config.size)
            diff_ids = (
                parse_config(config, len(manifest.layers)).diff_ids if config is not None else ()
            )
            yield from zip_longest(manifest.layers, diff_ids)


def verify_tables(store: Store, layer: Descriptor) -> list[ByteRange]:
    """Drop TOC and tar-split of a layer that is stored in parts, if one is damaged; which spans."""
    try:
        read_index_and_tarsplit(store, layer)
    except UnsupportedLayerError:
        return []
    except (IntegrityError, FormatError):
        held = [span for span in _parts(layer) if store.covers(layer.digest, span)]
        if held:
            store.evict(layer.digest, held)
        return held
    return []


def reverify_tables(store: Store, blob: Digest) -> list[ByteRange]:
    """Drop what the disk has spoilt of a layer's tables, by the images that list it; which spans.

    Where the store has none, no image relies on the layer, so its proofs go.
    """
    listed = [layer for layer, _ in listed_layers(store, store.images()) if layer.digest == blob]
    if not listed:
        store.drop_proofs(blob)
    return [span for layer in listed for span in verify_tables(store, layer)]


def _parts(layer: Descriptor) -> list[ByteRange]:
    """TOC and tar-split, where the annotations say where they are."""
    try:
        return locate(layer, may_be_joined=True).parts
    except UnsupportedLayerError:
        return []
