"""Index the frames of stored blobs, once a pull looks for frames: one that fetched whole blobs
leaves that undone.
"""

from __future__ import annotations

from collections.abc import Iterable

from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError
from zchunked.formats.annotations import kind_of
from zchunked.layers.metadata import read_index
from zchunked.layers.stand_ins import frame_rows
from zchunked.limits import Limits
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_document
from zchunked.store import Store

# frames: what takes a fifth of a second, and is kept if the process is killed thereafter
_AT_ONCE = 30_000


def index_blob(store: Store, blob: Digest, manifest: Digest, limits: Limits) -> None:
    """Read its TOC, once for all; where a process was killed over that, the next one goes on.

    A blob without a TOC that can be read has no frames.
    """
    layer = _listed(store, blob, manifest)
    try:
        if layer is not None:
            frames = read_index(store, layer, limits).frames()
            for first in range(store.frames.indexed_to(blob), len(frames), _AT_ONCE):
                some = slice(first, min(first + _AT_ONCE, len(frames)))
                store.frames.add(blob, layer.size, *frame_rows(frames, some=some), done=some.stop)
    except (FormatError, IntegrityError, UnsupportedLayerError):
        pass
    store.frames.set_indexed(blob)


def index_waiting(store: Store, waiting: Iterable[tuple[str, str]], limits: Limits) -> None:
    """Index blobs, each with a manifest that lists it, as `store.frames.unindexed` gives them."""
    for blob, manifest in waiting:
        index_blob(store, Digest(blob), Digest(manifest), limits)


def index_later(store: Store, layers: Iterable[Descriptor], manifest: str) -> None:
    """Note blobs that have frames, of layers that this manifest lists: the next pull indexes
    them.
    """
    chunked = [layer.digest for layer in layers if kind_of(layer) != "plain"]
    store.frames.set_unindexed(chunked, Digest(manifest))


def _listed(store: Store, blob: Digest, manifest: Digest) -> Descriptor | None:
    """The layer, as that manifest lists it, or as any image's does where it is not known."""
    for digest in [manifest] if manifest else [image.manifest for image in store.images()]:
        data = store.document(digest)
        document = parse_document(data) if data is not None else None
        for layer in document.layers if isinstance(document, Manifest) else ():
            if layer.digest == blob:
                return layer
    return None
