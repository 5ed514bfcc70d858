"""Lean way: find the chunks to fetch; check those that an earlier run left unchecked."""

from __future__ import annotations

from itertools import compress, repeat
from operator import sub

from zchunked.download.blobs.fetch_plan import ChunkChecks
from zchunked.layers.chunk_data import are_chunks
from zchunked.layers.metadata import ChunkPlaces, LayerIndex
from zchunked.pull.layer import LayerTask
from zchunked.ranges import ByteRange, Spans, merge, ranges
from zchunked.store import Store
from zchunked.store.chunks import ChunkLocation


def check_loose(
    index: LayerIndex, own: dict[bytes, int], store: Store, found: ChunkPlaces
) -> list[ByteRange]:
    """Check chunks that an earlier run received but did not record; returns the bad spans."""
    blob, toc = index.layer.digest, index.toc
    here = Spans(store.covered(blob))
    loose = [
        chunk
        for digest, chunk in own.items()
        if digest not in found and here.hold(toc.starts[chunk], toc.ends[chunk])
    ]
    loose.sort(key=toc.starts.__getitem__)
    asked = [
        (toc.starts[chunk], toc.ends[chunk], toc.chunk_sizes[chunk], toc.digests[chunk])
        for chunk in loose
    ]
    good, bad = [], []
    for (start, end, size, digest), is_good in zip(
        asked, are_chunks(store, blob, asked), strict=True
    ):
        if is_good:
            good.append((digest, start, end - start, size))
            found[digest] = ChunkLocation(blob, start, end - start)
        else:
            bad.append(ByteRange(start, end))
    if good:
        store.add_chunks(blob, index.layer.size, sorted(good))
    return store.report_corruption(blob, bad) if bad else []


def wanted_of(
    index: LayerIndex,
    places: ChunkPlaces,
    own: dict[bytes, int],
    found: ChunkPlaces,
    planned: ChunkPlaces,
) -> tuple[list[ByteRange], list[ByteRange], ChunkChecks]:
    """Spans that are wanted of the blob, those of them that are metadata, and the chunks to check.

    Fills `places`, and adds to `planned` what this layer will fetch.
    """
    toc = index.toc
    places |= found
    left = own.keys() - found.keys()
    places |= {digest: planned[digest] for digest in left & planned.keys()}
    ours = [own[digest] for digest in left - planned.keys()]
    ours.sort(key=toc.starts.__getitem__)
    starts, ends = [toc.starts[chunk] for chunk in ours], [toc.ends[chunk] for chunk in ours]
    digests = [toc.digests[chunk] for chunk in ours]
    new = dict(
        zip(
            digests,
            map(ChunkLocation, repeat(index.layer.digest), starts, map(sub, ends, starts)),
            strict=True,
        )
    )
    places |= new
    planned |= new
    checks = ChunkChecks(starts, ends, [toc.chunk_sizes[chunk] for chunk in ours], digests)
    metadata = index.vouched
    return merge([*ranges(starts, ends), *metadata]), metadata, checks


def held_elsewhere(task: LayerTask, found: ChunkPlaces) -> int:
    """Compressed bytes of the layer's chunks that other blobs in the store hold."""
    index = task.lean_index
    if index is None:
        return 0
    toc, blob = index.toc, task.layer.digest
    elsewhere = {digest for digest, place in found.items() if place.blob != blob}
    return sum(compress(map(sub, toc.ends, toc.starts), map(elsewhere.__contains__, toc.digests)))
