"""Prove a layer by its blob digest or its diff ID; find and drop chunks of it that are corrupt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from zchunked.errors import FormatError, IntegrityError
from zchunked.formats.frames.decompress import unpacked
from zchunked.layers.chunk_data import is_chunk, strides
from zchunked.layers.metadata import ChunkPlaces, LayerIndex
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.chunks import ChunkLocation
from zchunked.store.extents import Row

_BLOCK = 512 << 10


class UnprovedError(IntegrityError):
    """The tar has another diff ID. Bytes of the store may be to blame, or the image itself."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved: `is_blob`, the blob's digest; `tar_size` in bytes, the tar's diff ID.

    `shared`: of a blob, the extents of frames that stood in.
    """

    is_blob: bool
    tar_size: int | None = None
    shared: tuple[Row, ...] = ()


def prove(tar: Iterable[bytes], layer: Descriptor, diff_id: Digest) -> int:
    """Check a layer's tar against its diff ID; returns its size. Raises UnprovedError."""
    return sum(map(len, proving(tar, layer, diff_id)))


def proving(tar: Iterable[bytes], layer: Descriptor, diff_id: Digest) -> Iterator[bytes]:
    """Yield the tar while it is proved: the caller gets it before the verdict."""
    hasher = hashlib.sha256()
    for block in tar:
        hasher.update(block)
        yield block
    if "sha256:" + hasher.hexdigest() != diff_id:
        raise UnprovedError(
            f"layer {layer.digest} unpacks to sha256:{hasher.hexdigest()}, but the image's "
            f"config wants {diff_id}; the image is broken (a writer's bug) or tampered with: "
            "build and push it again"
        )


def tar_of_blob(
    pieces: Iterable[bytes], layer: Descriptor, limits: Limits = DEFAULT_LIMITS
) -> Iterator[bytes]:
    """The tar in a whole blob, in blocks. FormatError when there is none in it."""
    try:
        yield from strides(unpacked(pieces, limits), _BLOCK)
    except FormatError as error:
        raise FormatError(
            f"layer {short(layer.digest)} is what its digest says and still no tar: {error}"
        ) from error


def find_corrupt_chunks(store: Store, index: LayerIndex, places: ChunkPlaces) -> ChunkPlaces:
    """The stored chunks whose bytes do not match their digests. Reads all of the layer."""
    toc = index.toc
    sizes = dict(zip(toc.digests, toc.chunk_sizes, strict=True))
    holes = {toc.digests[chunk] for chunk, hole in enumerate(toc.holes) if hole}
    corrupt = {
        digest: places[digest]
        for digest, size in sizes.items()
        if digest not in holes
        and digest in places
        and not is_chunk(store, places[digest], size, digest)
    }
    # a TOC with a wrong size proves nothing
    for blob in {place.blob for place in corrupt.values()}:
        for digest, start, length, size in store.chunks_of(blob):
            place = ChunkLocation(blob, start, length)
            if (
                corrupt.get(digest) == place
                and size != sizes[digest]
                and is_chunk(store, place, size, digest)
            ):
                del corrupt[digest]
    return corrupt


def drop_corrupt_chunks(store: Store, corrupt: ChunkPlaces) -> None:
    """Forget chunks, and their bytes too unless the blob around them is proved."""
    by_blob: dict[Digest, list[bytes]] = {}
    for digest, place in corrupt.items():
        by_blob.setdefault(place.blob, []).append(digest)
    for blob, digests in by_blob.items():
        store.drop_chunks(blob, digests)
        if not (store.is_whole(blob) and is_intact(store, blob)):
            spans = [
                ByteRange(corrupt[digest].start, corrupt[digest].start + corrupt[digest].length)
                for digest in digests
            ]
            store.evict(blob, spans)


def is_intact(store: Store, blob: Digest, size: int | None = None) -> bool:
    """Whether the first `size` bytes match the blob's digest; without a size, all stored bytes."""
    covered = store.covered(blob)
    if size is None:
        return (
            bool(covered)
            and (covered[0].start == 0 and len(covered) == 1)
            and _hashes_to(store, blob, covered[0].end)
        )
    return _hashes_to(store, blob, size)


def _hashes_to(store: Store, blob: Digest, end: int) -> bool:
    hasher = hashlib.sha256()
    try:
        for piece in store.stream(blob, ByteRange(0, end)) if end else ():
            hasher.update(piece)
    except IntegrityError:
        return False
    return "sha256:" + hasher.hexdigest() == blob
