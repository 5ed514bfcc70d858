"""Record the frames of stored blobs in the index, by their TOCs, where no process has done it yet.

A pull only notes the blobs that it fetches. The next one reads their tables, and joins them with
its own (`stand_ins.py`); their rows go in while it waits for the link.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError
from zchunked.formats.layer_format import format_of
from zchunked.layers.metadata import read_index
from zchunked.layers.stored_toc import StoredToc, frame_rows
from zchunked.limits import Limits
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_document
from zchunked.store import Store
from zchunked.store.index.frame_index import FINGERPRINT_BYTES

# frames: what takes a fifth of a second, and is kept if the process is killed thereafter
_AT_ONCE = 30_000
_UNREADABLE = (FormatError, IntegrityError, UnsupportedLayerError)


@dataclass(frozen=True, slots=True)
class Unindexed:
    """A stored blob whose frames are not in the index.

    `layer` as a manifest lists it; None where none does. `toc_bytes`: of its TOC, compressed.
    """

    blob: Digest
    layer: Descriptor | None
    toc_bytes: int


def unindexed(store: Store, limits: Limits) -> list[Unindexed]:
    """Stored blobs without frames in the index, in order of arrival."""
    found = []
    for name, manifest in store.frames.unindexed():
        blob = Digest(name)
        layer = _listed(store, blob, Digest(manifest))
        size = 0
        if layer is not None:
            with suppress(*_UNREADABLE):
                form = format_of(layer)
                tail = form.tail(layer.size)
                data = store.read(blob, *tail) if tail else b""
                size = form.locate(layer, data, limits).toc.span.size
        found.append(Unindexed(blob, layer, size))
    return found


def read_table(store: Store, one: Unindexed, limits: Limits) -> StoredToc | None:
    """A blob's frames by its TOC; None without a readable one, which is noted."""
    with suppress(*_UNREADABLE):
        if one.layer is not None:
            return StoredToc.of(one.blob, read_index(store, one.layer, limits).frames())
    store.frames.set_indexed(one.blob)
    return None


def record_some(store: Store, table: StoredToc) -> bool:
    """Record the next frames of a table; returns whether some are left.

    After a kill the next process goes on.
    """
    blob = table.blob
    first = store.frames.indexed_to(blob)
    end = min(first + _AT_ONCE, len(table))
    if first < end:
        rows = frame_rows(table.part(first, end))
        store.frames.add(blob, table.edges[-1], *rows, done=end)
    if end < len(table):
        return True
    store.frames.set_indexed(blob)
    return False


def recorded_headers(store: Store, keys: set[bytes]) -> set[bytes]:
    """The keys of header frames among these that the index has."""
    ordered = sorted(keys)
    rows = store.frames.find_headers([key[:FINGERPRINT_BYTES] for key in ordered])
    return {ordered[one] for which, *_ in rows for one in which}


def index_blobs(store: Store, blobs: Iterable[Unindexed], limits: Limits) -> None:
    """Read their TOCs and record all frames."""
    for one in blobs:
        table = read_table(store, one, limits)
        while table is not None and record_some(store, table):
            pass


def _listed(store: Store, blob: Digest, manifest: Digest) -> Descriptor | None:
    """The layer, as that manifest lists it, or as any image's does where it is not known."""
    for digest in [manifest] if manifest else [image.manifest for image in store.images()]:
        data = store.document(digest)
        document = parse_document(data) if data is not None else None
        for layer in document.layers if isinstance(document, Manifest) else ():
            if layer.digest == blob:
                return layer
    return None
