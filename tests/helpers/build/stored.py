"""Layers and images put into a store by hand, as a pull would have left them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.helpers.build.front import Image, Layer
from zchunked.formats.annotations import locate
from zchunked.layers.metadata import LayerIndex, read_index_and_tarsplit
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.images import StoredImage, load

NAME = "example.com/app:v1"


_MEMORY = Path("/dev/shm")


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder for property tests, which make hundreds of stores: in memory if possible."""
    with TemporaryDirectory(prefix="zpull-", dir=_MEMORY if _MEMORY.is_dir() else None) as path:
        yield Path(path)


def descriptor_of(layer: Layer) -> Descriptor:
    return Descriptor(layer.media_type, Digest(layer.digest), layer.size, layer.annotations)


def write(store: Store, layer: Layer, spans: Iterable[ByteRange]) -> None:
    writer = store.writer(Digest(layer.digest), layer.size)
    for span in spans:
        writer.write(span.start, layer.blob[span.start : span.end])
    writer.close()


def keep_metadata(store: Store, layer: Layer) -> LayerIndex:
    """TOC and tar-split."""
    descriptor = descriptor_of(layer)
    location = locate(descriptor)
    write(
        store, layer, [location.toc.span, *([location.tarsplit.span] if location.tarsplit else [])]
    )
    index = read_index_and_tarsplit(store, descriptor)
    write(store, layer, index.vouched)
    return index


def keep_parts(store: Store, layer: Layer) -> LayerIndex:
    """All that a partial pull keeps of a layer: metadata and chunks, one copy of each, no holes."""
    index = keep_metadata(store, layer)
    toc = index.toc
    rows = {
        digest: (digest, start, end - start, size)
        for digest, start, end, size, hole in zip(
            toc.digests, toc.starts, toc.ends, toc.chunk_sizes, toc.holes, strict=True
        )
        if not hole
    }
    write(store, layer, [ByteRange(start, start + length) for _, start, length, _ in rows.values()])
    store.add_chunks(Digest(layer.digest), layer.size, rows.values())
    return index


def keep_whole(store: Store, layer: Layer) -> None:
    if layer.size:
        write(store, layer, [ByteRange(0, layer.size)])
    store.set_whole(Digest(layer.digest), layer.size)


def keep_image(
    store: Store, image: Image, *, in_parts: Iterable[int] = (), name: str = NAME
) -> StoredImage:
    """The image, its layers whole but for those numbered `in_parts`; then as an export loads it."""
    parts = set(in_parts)
    for number, layer in enumerate(image.layers):
        if number in parts:
            keep_parts(store, layer)
        else:
            keep_whole(store, layer)
        store.add_proof(Digest(layer.digest), Digest(layer.diff_id), len(layer.tar))
    store.put(image.config)
    manifest = store.put(image.manifest)
    store.set_image(name, image.platform, manifest, manifest)
    return load(store, name, None, None)
