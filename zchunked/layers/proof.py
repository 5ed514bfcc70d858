"""Proof: a layer is what the config's diff ID says, or it does not exist. Runs on the crew's prove lane."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from zchunked.errors import FormatError, IntegrityError
from zchunked.formats.decompress import unpacked
from zchunked.layers.metadata import LayerIndex
from zchunked.layers.rebuild import Arrived, is_chunk, strides
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, merge, subtract
from zchunked.store import Store
from zchunked.store.store import Place

_STEP = 1 << 20
_BLOCK = 512 << 10


class UnprovedError(IntegrityError):
    """The tar is not the one of the diff ID. Bytes of the store may be to blame, or the image itself."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Sizes in bytes. `is_whole`: the blob's own digest was verified too."""

    tar_size: int
    is_whole: bool


def prove(tar: Iterable[bytes], layer: Descriptor, diff_id: Digest, *, is_whole: bool) -> Proof:
    """A layer by its tar, rebuilt from parts or out of its whole blob. Raises UnprovedError, and what that raises."""
    hasher, size = hashlib.sha256(), 0
    for block in tar:
        hasher.update(block)
        size += len(block)
    if "sha256:" + hasher.hexdigest() != diff_id:
        raise UnprovedError(
            f"layer {layer.digest} unpacks to sha256:{hasher.hexdigest()}, but the image's config wants {diff_id}; "
            "the image is broken (a writer's bug) or tampered with: build and push it again"
        )
    return Proof(size, is_whole=is_whole)


def whole_tar(store: Store, layer: Descriptor, arrived: Arrived, limits: Limits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """The tar in a whole blob, in blocks, a step behind the download; at the end the blob is proved by its digest.

    Raises IntegrityError when the blob is not the registry's, FormatError when it is, and no tar.
    """
    blob = hashlib.sha256()
    pieces = _blob_pieces(store, layer, arrived, blob)
    broken: FormatError | None = None
    try:
        yield from strides(unpacked(pieces, limits), _BLOCK)
    except FormatError as error:
        broken = error
    for _ in pieces:  # to the last byte, whatever the decoder thought of it
        pass
    if "sha256:" + blob.hexdigest() != layer.digest:
        raise IntegrityError(f"layer {layer.digest}: got sha256:{blob.hexdigest()} ({layer.size} bytes)")
    if broken:
        raise FormatError(f"layer {short(layer.digest)} is what its digest says and still no tar: {broken}") from broken


def _blob_pieces(store: Store, layer: Descriptor, arrived: Arrived, hasher: hashlib._Hash) -> Iterator[bytes]:
    for at in range(0, layer.size, _STEP):
        end = min(at + _STEP, layer.size)
        arrived(layer.digest, end)
        data = store.read(layer.digest, at, end)
        hasher.update(data)
        yield data


def find_liars(store: Store, contents: LayerIndex, places: dict[bytes, Place]) -> dict[bytes, Place]:
    """The chunks whose bytes in the store are not what their digests promise. Reads all of the layer."""
    toc = contents.toc
    sizes = dict(zip(toc.digests, toc.chunk_sizes, strict=True))
    holes = {toc.digests[chunk] for chunk, hole in enumerate(toc.holes) if hole}
    liars = {
        digest: places[digest]
        for digest, size in sizes.items()
        if digest not in holes and digest in places and not is_chunk(store, places[digest], size, digest)
    }
    for blob in {place.blob for place in liars.values()}:  # a TOC that lies about a size convicts nobody
        for digest, start, length, size in store.chunks_of(blob):
            place = Place(blob, start, length)
            if liars.get(digest) == place and size != sizes[digest] and is_chunk(store, place, size, digest):
                del liars[digest]
    return liars


def find_damage(
    store: Store, layer: Descriptor, contents: LayerIndex | None, again: Sequence[ByteRange] = ()
) -> list[ByteRange]:
    """Where a blob that came whole and is not what its digest says may be wrong; as little of it as its TOC allows.

    `again`: what was found before and came anew, in order; where chunks are right, more than that must be wrong.
    """
    whole = [ByteRange(0, layer.size)]
    if contents is None:
        return whole
    places = {digest: contents.place(chunk) for digest, chunk in contents.own_chunks().items()}
    if liars := find_liars(store, contents, places):
        store.drop_chunks(layer.digest, liars)
        return merge(place.span for place in liars.values())
    sound = merge([*(place.span for place in places.values()), *contents.vouched])
    wrong = subtract(whole, sound)
    if subtract(wrong, again):
        return wrong
    store.drop_chunks(layer.digest, ())  # all of it goes, and what other layers take from it
    return whole


def drop_liars(store: Store, liars: dict[bytes, Place]) -> None:
    """Forget them, and their bytes too where the blob around them is not provably the registry's."""
    by_blob: dict[Digest, list[bytes]] = {}
    for digest, place in liars.items():
        by_blob.setdefault(place.blob, []).append(digest)
    for blob, digests in by_blob.items():
        store.drop_chunks(blob, digests)
        if not (store.is_whole(blob) and is_intact(store, blob)):
            spans = [ByteRange(liars[digest].start, liars[digest].start + liars[digest].length) for digest in digests]
            store.evict(blob, spans)


def is_intact(store: Store, blob: Digest, size: int | None = None) -> bool:
    """Whether the first `size` bytes are the whole blob, by its digest; without a size, all bytes at hand."""
    covered = store.covered(blob)
    if size is None:
        return (
            bool(covered) and (covered[0].start == 0 and len(covered) == 1) and _hashes_to(store, blob, covered[0].end)
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
