"""LayerIndex: a stored layer's TOC and tar-split, read and checked against their digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import compress, count
from typing import Self

from zchunked.errors import FormatError, IntegrityError
from zchunked.formats.annotations import Location, Part
from zchunked.formats.frames.frame_map import FrameMap
from zchunked.formats.layer_format import format_of
from zchunked.formats.tables.toc import Toc
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import raw, short
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.chunks import ChunkLocation

ChunkPlaces = dict[bytes, ChunkLocation]
"""Where chunks lie, by the digest of their content."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerIndex:
    """A layer whose TOC was read and verified. `tarsplit`: None where no digest vouches."""

    layer: Descriptor
    location: Location
    toc: Toc
    tarsplit: Part | None

    @classmethod
    def of(cls, layer: Descriptor, location: Location, toc: Toc) -> Self:
        """Make the index of a TOC that was read. FormatError for a tar-split without a position."""
        if toc.tarsplit_digest and location.tarsplit is None:
            raise FormatError(
                f"layer {short(layer.digest)} has a tar-split digest in its TOC and no position "
                "for it"
            )
        return cls(
            layer,
            location,
            toc,
            location.tarsplit if toc.tarsplit_digest or location.tarsplit_digest else None,
        )

    @property
    def vouched(self) -> list[ByteRange]:
        """Spans of TOC and tar-split: they have digests, and a rebuilt tar needs them."""
        return [self.location.toc.span, *([self.tarsplit.span] if self.tarsplit else [])]

    @property
    def payload_end(self) -> int:
        """Where the blob's tail begins."""
        return self.location.payload_end

    def frames(self) -> FrameMap:
        """The frames of its blob. FormatError when TOC and blob size contradict each other."""
        return format_of(self.layer).frame_map(self.toc, self.location, self.layer.size)

    def own_chunks(self) -> dict[bytes, int]:
        """The layer's distinct chunks by raw digest, without holes; of equal ones the shortest."""
        toc = self.toc
        own: dict[bytes, int] = {}
        known = map(own.setdefault, toc.digests, count())
        for chunk, first in enumerate(known):
            if first != chunk and self.length(chunk) < self.length(first):
                own[toc.digests[chunk]] = chunk
        if any(toc.holes):
            for chunk in compress(count(), toc.holes):
                own.pop(toc.digests[chunk], None)
        return own

    def length(self, chunk: int) -> int:
        """Compressed bytes of a chunk."""
        return self.toc.ends[chunk] - self.toc.starts[chunk]

    def place(self, chunk: int) -> ChunkLocation:
        """Where the layer's own blob has it."""
        return ChunkLocation(self.layer.digest, self.toc.starts[chunk], self.length(chunk))


def read_index(store: Store, layer: Descriptor, limits: Limits = DEFAULT_LIMITS) -> LayerIndex:
    """The TOC, checked. Raises as `read_index_and_tarsplit`."""
    form = format_of(layer)
    tail = form.tail(layer.size)
    location = form.locate(layer, store.read(layer.digest, *tail) if tail else b"", limits)
    return LayerIndex.of(layer, location, read_toc(store, layer, location, limits))


def read_toc(
    store: Store, layer: Descriptor, location: Location, limits: Limits = DEFAULT_LIMITS
) -> Toc:
    """Raises as `read_index_and_tarsplit`."""
    reader = format_of(layer).toc_reader(layer, location, limits)
    for piece in store.stream(layer.digest, location.toc.span):
        reader.feed(piece)
    return reader.finish()


def read_index_and_tarsplit(
    store: Store, layer: Descriptor, limits: Limits = DEFAULT_LIMITS
) -> LayerIndex:
    """TOC and, where there is one, the tar-split's digest, checked.

    Raises IntegrityError naming what is damaged or not in the store, FormatError,
    UnsupportedLayerError.
    """
    index = read_index(store, layer, limits)
    check_tarsplit(store, index)
    return index


def check_tarsplit(store: Store, index: LayerIndex) -> None:
    """Nothing where there is none; IntegrityError when it is damaged or not in the store."""
    digest = index.toc.tarsplit_digest or index.location.tarsplit_digest
    if index.tarsplit is None or digest is None:
        return
    blob, hasher = index.layer.digest, hashlib.sha256()
    for piece in store.stream(blob, index.tarsplit.span):
        hasher.update(piece)
    if hasher.digest() != raw(digest):
        raise IntegrityError(
            f"tar-split of layer {short(blob)}: expected {digest}, got sha256:{hasher.hexdigest()}"
        )
