"""Learn what an image is: manifest, config, and its tables of contents meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from zchunked.events import Warned
from zchunked.formats.annotations import kind_of
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_config
from zchunked.oci.platform import runs_on
from zchunked.pull.layer import LayerTask
from zchunked.pull.layers import Layers
from zchunked.pull.metadata.documents import DocumentFetcher
from zchunked.pull.session import PullSession
from zchunked.ranges import ByteRange
from zchunked.store.images import ImageDocuments, StoredImage


class ImageOpener:
    """Opens the image of one pull; for the caller's thread, while the session has workers."""

    def __init__(self, session: PullSession, layers: Layers) -> None:
        self._session, self._layers = session, layers
        self._documents = DocumentFetcher(session)

    @property
    def cost_again(self) -> int:
        """Bytes of the manifest that the next pull asks for too."""
        return self._documents.cost_again

    def open(
        self, begin: Callable[[ImageDocuments], None] = lambda _: None
    ) -> tuple[StoredImage, list[LayerTask]]:
        """The image, and one task for each of its distinct layers; all of them on the receipt.

        `begin` is called once the manifest is known. Raises as the source does, FormatError,
        NotFoundError.
        """
        session = self._session
        documents = session.run("fetch", self._documents.documents)
        manifest = documents.manifest
        self._layers.begin(documents)
        begin(documents)
        data = self._config(manifest)
        limits = session.options.limits
        config = parse_config(data, len(manifest.layers), limits=limits)
        session.receipt.platform = str(config.platform)
        if not runs_on(config.platform, session.options.platform):
            self._warn(
                f"the image is for {config.platform}, not for {session.options.platform} as asked; "
                "no other platform is offered under this name"
            )
        tasks = self._tasks(manifest, config.diff_ids)
        session.count_cached()
        return StoredImage(session.origin.name, documents, data, config), tasks

    def _config(self, manifest: Manifest) -> bytes:
        """The config, while tables of contents are fetched that the store lacks."""
        session, store = self._session, self._session.store
        unknown: list[Descriptor] = []
        config = manifest.config
        if not store.covers(config.digest, ByteRange(0, max(config.size, 1))):
            unknown = [
                layer
                for layer in manifest.layers
                if not (store.is_whole(layer.digest) or store.is_proved(layer.digest))
            ]
        if session.options.jobs > 1:  # otherwise the config would wait for it
            self._layers.inspect(unknown[:1])  # by the connection that is open
        found: list[bytes] = []
        session.pool.submit("fetch", lambda: found.append(self._documents.config(config)))
        self._layers.inspect(unknown)
        session.wait(until=lambda: bool(found))
        return found[0]

    def _tasks(self, manifest: Manifest, diff_ids: tuple[Digest, ...]) -> list[LayerTask]:
        receipt = self._session.receipt
        receipt.list_layers(manifest, diff_ids, [kind_of(layer) for layer in manifest.layers])
        tasks: dict[tuple[Digest, Digest], LayerTask] = {}
        for layer, diff_id, entry in zip(manifest.layers, diff_ids, receipt.layers, strict=True):
            arrival = self._session.downloader.arrivals.of(layer.digest)
            task = LayerTask(layer, diff_id, entry, arrival)
            if self._session.is_proved(layer, diff_id):
                entry.mode, entry.cached_bytes = "cached", layer.size
            elif (layer.digest, diff_id) in tasks:
                entry.mode = "cached"  # the same layer again
            tasks.setdefault((layer.digest, diff_id), task)
        return list(tasks.values())

    def _warn(self, text: str) -> None:
        warnings = self._session.receipt.warnings
        if text not in warnings:  # a pull that repairs says it again
            warnings.append(text)
            self._session.emit(Warned(text))
