"""Check stored blobs against their digests, frame by frame and chunk by chunk; drop the damage."""

from __future__ import annotations

from collections.abc import Iterable

from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError
from zchunked.findings import Damage, Findings
from zchunked.layers.chunk_data import is_chunk
from zchunked.layers.corruption import find_corruption
from zchunked.layers.metadata import read_index
from zchunked.layers.proof import drop_corrupt_chunks, is_intact
from zchunked.layers.stand_ins import StandIns
from zchunked.oci.digest import Digest, from_raw
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, merge, subtract, total
from zchunked.store import Store
from zchunked.store.chunks import ChunkLocation


def reverify(store: Store, layers: Iterable[Descriptor]) -> None:
    """Drop what is damaged of these layers, and their proofs: the next pull checks the rest."""
    for layer in {layer.digest: layer for layer in layers}.values():
        blob = layer.digest
        verify_blob(store, blob, layer.size, Findings(), layer, is_whole=store.is_whole(blob))
        store.drop_proofs(blob)


def drop_damage(store: Store, blob: Digest, size: int) -> None:
    """Drop what is damaged of a blob that counts as whole."""
    verify_blob(store, blob, size, Findings(), None, is_whole=store.is_whole(blob))


def verify_blob(
    store: Store,
    blob: Digest,
    size: int,
    findings: Findings,
    layer: Descriptor | None,
    *,
    is_whole: bool,
) -> None:
    """Drop what is damaged of one blob, and note it.

    `layer`: its descriptor, where some image lists it.
    """
    findings.blobs += 1
    lost = store.drop_lost(blob)
    findings.damaged += [Damage(blob, span.start, span.end) for span in lost]
    if is_whole and not lost and (is_intact(store, blob, size) or is_intact(store, blob)):
        findings.bytes += total(store.covered(blob))
    elif is_whole and not lost and layer is not None and (wrong := _wrong_frames(store, layer)):
        store.evict(blob, wrong)
        findings.damaged += [Damage(blob, span.start, span.end) for span in wrong]
    else:
        _verify_parts(store, blob, findings, is_wrong=is_whole and not lost)


def _wrong_frames(store: Store, layer: Descriptor) -> list[ByteRange]:
    """Where a blob with a table of contents is damaged; empty where that cannot be told."""
    try:
        index = read_index(store, layer)
        frames = index.frames()
    except (FormatError, IntegrityError, UnsupportedLayerError):
        return []
    found = find_corruption(store, index, frames, StandIns())
    return found.damaged or found.unsure


def _verify_parts(store: Store, blob: Digest, findings: Findings, *, is_wrong: bool) -> None:
    """`is_wrong`: all of the blob is here, and it is not what its digest says."""
    corrupt: dict[bytes, ChunkLocation] = {}
    chunks: list[ByteRange] = []
    for digest, start, length, size in store.chunks_of(blob):
        place = ChunkLocation(blob, start, length)
        chunks.append(place.span)
        if not store.covers(blob, place.span):
            continue  # a promise that was not kept, or is no longer: it counts as absent everywhere
        findings.chunks += 1
        findings.bytes += length
        if not is_chunk(store, place, size, digest):
            corrupt[digest] = place
            findings.damaged.append(Damage(blob, start, start + length, from_raw(digest)))
    if corrupt:
        drop_corrupt_chunks(store, corrupt)
    elif is_wrong:  # the damage lies between the chunks, or there are none
        spans = subtract(store.covered(blob), merge(chunks))
        store.evict(blob, spans)
        findings.damaged += [Damage(blob, span.start, span.end) for span in spans]
