"""Verify the store: hash what it holds, prove diff IDs, drop what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from zchunked.errors import FormatError, IntegrityError
from zchunked.findings import Damage, Findings, Image, Lie
from zchunked.layers.assemble import Assembly
from zchunked.layers.proof import prove, tar_of_blob
from zchunked.limits import DEFAULT_LIMITS
from zchunked.maintenance.blob_check import verify_blob
from zchunked.maintenance.tables_check import listed_layers, verify_tables
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_document
from zchunked.ranges import total
from zchunked.store import Store


def verify(
    store: Store,
    show: Callable[[int], None] = lambda _: None,
    *,
    only: Sequence[Digest] | None = None,
    is_quick: bool = False,
) -> Findings:
    """Check every blob and chunk. Reports bytes done to `show`. Skips unfinished downloads.

    `only`: manifests; what their images need is looked at, and what its layers rest on. `is_quick`:
    nothing is hashed, only files that are gone or too short are found.
    """
    findings = Findings(is_read_only=store.is_read_only)
    images = [image for image in store.images() if only is None or image.manifest in only]
    wanted = None if only is None else _needed(store, images)
    layers = {layer.digest: layer for layer, _ in listed_layers(store, images)}
    for blob, size, is_whole in store.blobs():
        if wanted is not None and blob not in wanted:
            continue
        if is_quick:
            findings.blobs += 1
            findings.damaged += [
                Damage(blob, span.start, span.end) for span in store.drop_lost(blob)
            ]
        else:
            verify_blob(store, blob, size, findings, layers.get(blob), is_whole=is_whole)
        show(total(store.covered(blob)))
    if not is_quick:
        _verify_layers(store, images, findings)
    if only is None:
        findings.unclaimed = store.drop_unclaimed()
    return findings


def _needed(store: Store, images: Iterable[Image]) -> set[Digest]:
    needed: set[Digest] = set()
    for image in images:
        needed |= {image.root, image.manifest}
        data = store.document(image.manifest)
        manifest = parse_document(data) if data is not None else None
        if isinstance(manifest, Manifest):
            needed |= {manifest.config.digest, *(layer.digest for layer in manifest.layers)}
    for (layer, _), blobs in store.collector().rests().items():
        if layer in needed:
            needed |= {Digest(blob) for blob in blobs}
    return needed


def _verify_layers(store: Store, images: Iterable[Image], findings: Findings) -> None:
    """Check diff IDs of whole layers; TOCs and tar-splits of layers that are stored in parts."""
    done: set[tuple[Digest, Digest | None]] = set()
    for layer, diff_id in listed_layers(store, images):
        if (layer.digest, diff_id) in done or not store.covered(layer.digest):
            continue
        done.add((layer.digest, diff_id))
        if store.is_whole(layer.digest):
            if diff_id is not None:
                _prove_layer(store, layer, diff_id, findings)
            continue
        spans = verify_tables(store, layer)
        findings.damaged += [Damage(layer.digest, span.start, span.end) for span in spans]


def _prove_layer(store: Store, layer: Descriptor, diff_id: Digest, findings: Findings) -> None:
    """Check the tar of a layer whose bytes are right against its diff ID, once more."""
    try:
        tar = tar_of_blob(Assembly(store, layer).blocks(), layer, DEFAULT_LIMITS)
        store.add_proof(layer.digest, diff_id, prove(tar, layer, diff_id))
    except (IntegrityError, FormatError) as error:
        findings.lies.append(Lie(layer.digest, diff_id, str(error)))
