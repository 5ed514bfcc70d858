"""Bytes of an update from one image to another: with the layers as they were, and converted."""

from __future__ import annotations

import hashlib
from itertools import pairwise

from zchunked.convert.image import ConvertedImage
from zchunked.convert.layers import ConvertedLayer
from zchunked.formats.annotations import is_current
from zchunked.formats.frame_map import HEADER
from zchunked.layers.metadata import LayerIndex, read_index_and_tarsplit
from zchunked.oci.documents import Descriptor
from zchunked.ranges import total
from zchunked.results import UpdateCost
from zchunked.store import Store


def update_cost(store: Store, old: ConvertedImage, new: ConvertedImage) -> UpdateCost:
    """For whoever has the old image. Both are in the store, whole."""
    had = {layer.source.digest for layer in old.layers}
    before = {
        layer.source.digest: layer.source.size
        for layer in new.layers
        if layer.source.digest not in had
    }
    chunks: set[bytes] = set()
    frames: set[bytes] = set()
    known = {layer.layer.digest for layer in old.layers}
    for one in _layers(old):
        if is_current(one):
            index = read_index_and_tarsplit(store, one)
            chunks.update(index.own_chunks())
            frames.update(_header_frames(store, index))
    lean = exact = 0
    for one in _layers(new):
        if one.digest in known:
            continue
        if not is_current(one):
            lean += one.size
            exact += one.size
            continue
        index = read_index_and_tarsplit(store, one)
        missing = sum(
            index.length(chunk)
            for digest, chunk in index.own_chunks().items()
            if digest not in chunks
        )
        headers = _header_frames(store, index)
        lean += missing + total(index.vouched)
        exact += missing + sum(size for key, size in headers.items() if key not in frames)
        exact += one.size - index.location.payload_end
        chunks.update(index.own_chunks())
    return UpdateCost(sum(before.values()), lean, exact)


def _layers(image: ConvertedImage) -> list[Descriptor]:
    layers: list[ConvertedLayer] = image.layers
    return list({layer.layer.digest: layer.layer for layer in layers}.values())


def _header_frames(store: Store, index: LayerIndex) -> dict[bytes, int]:
    """By the hash of their bytes, with their length."""
    frames = index.frames()
    spans = [
        span
        for kind, span in zip(frames.kinds, pairwise(frames.edges), strict=True)
        if kind == HEADER
    ]
    found = store.read_many(index.layer.digest, spans)
    return {hashlib.sha256(data).digest(): len(data) for data in found}
