"""Convert a stored image: its layers to zstd:chunked, side by side, then config and manifest."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from msgspec import structs

from zchunked.convert.layers import ConvertedLayer, ConvertSettings, LayerConverter
from zchunked.download.workers import WorkerPool
from zchunked.errors import InterruptedPullError
from zchunked.events import Converted, Converting, Event, Noted
from zchunked.export.images.layers import LayerContent, layers_of, oci_type
from zchunked.interfaces import Emit
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_config,
    parse_document,
)
from zchunked.store import Store
from zchunked.store.images import ImageDocuments, StoredImage

_LAYERS_AT_ONCE = 2
_AHEAD = 2  # batches for each worker that compresses, in each layer


@dataclass(frozen=True, slots=True)
class ConvertedImage:
    """`image` is in the store, its layers whole, under no name yet."""

    image: StoredImage
    layers: list[ConvertedLayer]


class _Read:
    """How far one layer has been read. Its second reading, where it has no TOC, does not count."""

    def __init__(self, size: int, put: Callable[[Event], None]) -> None:
        self._left, self._put = size, put

    def __call__(self, size: int) -> None:
        size = min(size, self._left)
        self._left -= size
        if size:
            self._put(Converted(size))

    def end(self) -> None:
        """The layer is there, however much had to be read."""
        self(self._left)


class Converter:
    """Converts one image. `run` once, on the caller's thread, which also gets all events."""

    def __init__(
        self, store: Store, settings: ConvertSettings, show: Emit, workers: int | None = None
    ) -> None:
        """`workers`: threads that compress, one for each processor unless given."""
        self._store, self._settings, self._show = store, settings, show
        self._workers = workers or os.cpu_count() or 1
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()

    def run(self, image: StoredImage) -> ConvertedImage:
        """DamagedLayerError, LocalError, InterruptedPullError; finished layers are kept."""
        contents = layers_of(self._store, image)
        pool = WorkerPool({"layer": _LAYERS_AT_ONCE, "encode": self._workers}, self._stop)
        converter = LayerConverter(
            self._store, self._settings, partial(pool.result_of, "encode"), _AHEAD * self._workers
        )
        done: dict[tuple[Digest, Digest], ConvertedLayer] = {}

        def convert(content: LayerContent) -> None:
            read = _Read(content.layer.size, self._events.put)
            layer = converter.convert(replace(content, on_read=read))
            read.end()
            done[content.layer.digest, content.diff_id] = layer
            self._events.put(Noted(_note_of(layer)))

        different = {(one.layer.digest, one.diff_id): one for one in contents}
        self._show(Converting(sum(one.layer.size for one in different.values())))
        try:
            with pool:
                try:
                    for content in different.values():
                        pool.submit("layer", partial(convert, content))
                    pool.wait(self._tick)
                finally:
                    self._stop.set()
        except KeyboardInterrupt as error:
            raise InterruptedPullError("interrupted") from error
        finally:
            self._tick()
        layers = [done[one.layer.digest, one.diff_id] for one in contents]
        return ConvertedImage(self._described(image, layers), layers)

    def _tick(self) -> None:
        while not self._events.empty():
            self._show(self._events.get())

    def _described(self, image: StoredImage, layers: list[ConvertedLayer]) -> StoredImage:
        """The documents of the new image, in the store."""
        if all(layer.layer is layer.source for layer in layers):
            return image
        rewrite = self._settings.rewrite
        config_data = _config(image.config_data, layers, rewrite.latest if rewrite else None)
        config = Descriptor(OCI_CONFIG, self._store.put(config_data), len(config_data))
        data = _manifest(image.documents.manifest_data, config, [layer.layer for layer in layers])
        digest = self._store.put(data)
        manifest = parse_document(data)
        assert isinstance(manifest, Manifest)
        documents = ImageDocuments(digest, digest, data, manifest)
        return StoredImage(
            image.name, documents, config_data, parse_config(config_data, len(layers))
        )


def _config(data: bytes, layers: list[ConvertedLayer], latest: int | None) -> bytes:
    """The config, unchanged unless diff IDs changed; then no time is after `latest`."""
    document = json.loads(data)
    diff_ids = [layer.diff_id for layer in layers]
    if document["rootfs"]["diff_ids"] == diff_ids:
        return data
    document["rootfs"]["diff_ids"] = diff_ids
    for place in [document, *(document.get("history") or ())]:
        if latest is not None and isinstance(place, dict) and isinstance(place.get("created"), str):
            place["created"] = _clamped(place["created"], latest)
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _clamped(created: str, latest: int) -> str:
    try:
        is_later = datetime.fromisoformat(created) > datetime.fromtimestamp(latest, UTC)
    except (ValueError, TypeError, OverflowError):
        return created
    return (
        datetime.fromtimestamp(latest, UTC).isoformat().replace("+00:00", "Z")
        if is_later
        else created
    )


def _manifest(data: bytes, config: Descriptor, layers: list[Descriptor]) -> bytes:
    """The old manifest with other layers, as OCI: Docker's has no place for annotations."""
    document: dict[str, Any] = json.loads(data)
    document |= {"mediaType": OCI_MANIFEST, "config": listed(config)}
    document["layers"] = [
        listed(structs.replace(layer, media_type=oci_type(layer.media_type))) for layer in layers
    ]
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def listed(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as a manifest or an index lists it."""
    found: dict[str, Any] = {
        "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size,
    }  # fmt: skip
    return found | ({"annotations": dict(descriptor.annotations)} if descriptor.annotations else {})


def _note_of(layer: ConvertedLayer) -> str:
    sizes = f"{layer.source.size} → {layer.layer.size} bytes"
    what = {
        "converted": sizes, "remembered": f"{sizes}, from an earlier conversion",
        "kept": "is zstd:chunked already",
        "plain": f"{sizes}, without a table of contents: {layer.note}",
    }  # fmt: skip
    return f"layer {short(layer.source.digest)}: {what[layer.outcome]}"
