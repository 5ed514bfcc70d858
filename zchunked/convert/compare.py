"""Bytes of an update from one image to another: with the layers as they were, and converted."""

from __future__ import annotations

import hashlib
from itertools import compress, groupby, pairwise
from typing import NamedTuple

from zchunked.convert.image import ConvertedImage
from zchunked.convert.layers import ConvertedLayer
from zchunked.formats.annotations import is_current
from zchunked.formats.frames.frame_map import HEADER
from zchunked.layers.metadata import LayerIndex, read_index_and_tarsplit
from zchunked.oci.documents import Descriptor
from zchunked.ranges import total
from zchunked.results import UpdateCost
from zchunked.store import Store

_AT_ONCE_BYTES = 4 << 20  # of a blob


def update_cost(store: Store, old: ConvertedImage, new: ConvertedImage) -> UpdateCost:
    """The cost for a machine with the old image. Both are whole in the store."""
    had = {layer.source.digest for layer in old.layers}
    before = {
        layer.source.digest: layer.source.size
        for layer in new.layers
        if layer.source.digest not in had
    }
    chunks: set[bytes] = set()
    headers: set[bytes] = set()
    known = {layer.layer.digest for layer in old.layers}
    for one in filter(is_current, _layers(old)):
        had_frames = _frames_of(store, one)
        chunks.update(had_frames.chunks)
        headers.update(had_frames.headers)
    lean = exact = 0
    for one in _layers(new):
        if one.digest in known:
            continue
        if not is_current(one):
            lean += one.size
            exact += one.size
            continue
        frames = _frames_of(store, one)
        missing = _lacking(frames.chunks, chunks)
        lean += missing + frames.tables
        exact += missing + _lacking(frames.headers, headers) + frames.tail
        chunks.update(frames.chunks)
    return UpdateCost(sum(before.values()), lean, exact)


def _layers(image: ConvertedImage) -> list[Descriptor]:
    layers: list[ConvertedLayer] = image.layers
    return list({layer.layer.digest: layer.layer for layer in layers}.values())


def _lacking(frames: dict[bytes, int], known: set[bytes]) -> int:
    return sum(size for key, size in frames.items() if key not in known)


class _Frames(NamedTuple):
    """Lengths of a layer's distinct chunks by digest, of its header frames by theirs, of its tail.

    `tables`: bytes that the lean way fetches besides chunks.
    """

    chunks: dict[bytes, int]
    headers: dict[bytes, int]
    tables: int
    tail: int


def _frames_of(store: Store, layer: Descriptor) -> _Frames:
    index = read_index_and_tarsplit(store, layer)
    chunks = {digest: index.length(chunk) for digest, chunk in index.own_chunks().items()}
    tail = layer.size - index.location.payload_end
    return _Frames(chunks, _header_frames(store, index), total(index.vouched), tail)


def _header_frames(store: Store, index: LayerIndex) -> dict[bytes, int]:
    """By the hash of their bytes, with their length.

    The store reads neighbours together, and the chunks between them: a layer of many small files
    would be in memory whole, were it not gone through in parts.
    """
    frames = index.frames()
    is_header = (kind == HEADER for kind in frames.kinds)
    spans = compress(pairwise(frames.edges), is_header)
    found: dict[bytes, int] = {}
    for _, part in groupby(spans, lambda span: span[0] // _AT_ONCE_BYTES):
        for data in store.read_many(index.layer.digest, list(part)):
            found[hashlib.sha256(data).digest()] = len(data)
    return found
