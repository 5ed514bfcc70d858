"""Record the chunks that interrupted pulls have received, so that other images find them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError
from zchunked.formats.annotations import locate
from zchunked.layers.chunk_data import are_chunks
from zchunked.layers.metadata import LayerIndex, read_toc
from zchunked.limits import Limits
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_document
from zchunked.ranges import ByteRange, Spans, total
from zchunked.store import Store

_WORTH = 10


def adopt_chunks(
    store: Store,
    repository: str,
    own: Collection[Digest],
    fetch: Callable[[FetchPlan], None],
    limits: Limits,
) -> None:
    """Record what interrupted pulls of the repository left, except for layers of this pull, `own`.

    `fetch` fetches a TOC, if it can: only where that is next to nothing beside what was received.
    Each chunk is checked before it is recorded. What cannot be read is left alone.
    """
    for row in store.pulls.rows():
        if not row.name.startswith(repository) or store.pulls.is_running(row):
            continue
        try:
            data = store.document(Digest(row.manifest))
            manifest = parse_document(data) if data is not None else None
            for layer in manifest.layers if isinstance(manifest, Manifest) else ():
                if not (
                    layer.digest in own
                    or store.is_whole(layer.digest)
                    or store.is_proved(layer.digest)
                ):
                    _record_layer(store, layer, fetch, limits)
        except (FormatError, IntegrityError, UnsupportedLayerError):
            continue


def _record_layer(
    store: Store, layer: Descriptor, fetch: Callable[[FetchPlan], None], limits: Limits
) -> None:
    here = total(store.covered(layer.digest))
    if not here:
        return
    location = locate(layer, limits)
    left = store.missing(layer.digest, [location.toc.span])
    if left and total(left) * _WORTH <= here:
        fetch(FetchPlan(layer, [(span,) for span in left], left, left))
    _record_chunks(
        store, LayerIndex.of(layer, location, read_toc(store, layer, location, limits)), limits
    )


def _record_chunks(store: Store, index: LayerIndex, limits: Limits) -> None:
    toc, blob = index.toc, index.layer.digest
    here = Spans(store.covered(blob))
    known = {row[0] for row in store.chunks_of(blob)}
    chunks = sorted(
        (toc.starts[chunk], toc.ends[chunk], toc.chunk_sizes[chunk], digest)
        for digest, chunk in index.own_chunks().items()
        if digest not in known
        and here.overlap(ByteRange(toc.starts[chunk], toc.ends[chunk]))
        == toc.ends[chunk] - toc.starts[chunk]
    )
    verdicts = are_chunks(store, blob, chunks, limits)
    rows = sorted(
        (digest, start, end - start, size)
        for (start, end, size, digest), is_good in zip(chunks, verdicts, strict=True)
        if is_good
    )
    if rows:
        store.add_chunks(blob, index.layer.size, rows)
