"""Learn what an image is: manifest, config, and meanwhile the first bytes of what is lacking."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zchunked.events import Warned
from zchunked.formats.annotations import kind_of
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_config
from zchunked.oci.platform import runs_on
from zchunked.pull.metadata.documents import DocumentFetcher
from zchunked.pull.session import PullSession
from zchunked.ranges import ByteRange
from zchunked.store.images import ImageDocuments, StoredImage

if TYPE_CHECKING:
    from zchunked.pull.layers import Layers


class ImageOpener:
    """Opens the image of one pull; for the caller's thread, while the session has workers."""

    def __init__(self, session: PullSession, layers: Callable[[], Layers]) -> None:
        """`layers`: asked for once some are lacking."""
        self._session, self._layers = session, layers
        self._documents = DocumentFetcher(session)

    @property
    def cost_again(self) -> int:
        """Bytes of the manifest that the next pull asks for too."""
        return self._documents.cost_again

    def open(self, begin: Callable[[ImageDocuments], None] = lambda _: None) -> StoredImage:
        """The image; its layers are on the receipt then.

        `begin` is called once the manifest is known. Raises as the source does, FormatError,
        NotFoundError.
        """
        session = self._session
        documents = self._resolved()
        manifest = documents.manifest
        lacking = self._lacking(manifest)
        if lacking:
            self._layers().begin(documents)
        begin(documents)
        data = self._config(manifest.config, lacking)
        limits = session.options.limits
        config = parse_config(data, len(manifest.layers), limits=limits)
        session.receipt.platform = str(config.platform)
        if not runs_on(config.platform, session.options.platform):
            self._warn(
                f"the image is for {config.platform}, not for {session.options.platform} as asked; "
                "no other platform is offered under this name"
            )
        self._list_layers(manifest, config.diff_ids)
        session.count_cached()
        return StoredImage(session.origin.name, documents, data, config)

    def _resolved(self) -> ImageDocuments:
        """The manifest, while what fetches layers is loaded: 20 ms, for a pull that will need it.

        An image that was pulled before has often not changed.
        """
        session, found = self._session, list[ImageDocuments]()
        session.pool.submit("fetch", lambda: found.append(self._documents.documents()))
        if all(image.name != session.origin.name for image in session.store.images()):
            self._layers()
        session.wait()
        return found[0]

    def _lacking(self, manifest: Manifest) -> list[Descriptor]:
        """The layers that were proved by no digest yet."""
        store = self._session.store
        return [
            layer
            for layer in manifest.layers
            if not (store.is_whole(layer.digest) or store.is_proved(layer.digest))
        ]

    def _config(self, config: Descriptor, lacking: list[Descriptor]) -> bytes:
        """The config, while tables of contents are fetched of the lacking layers."""
        session, found = self._session, list[bytes]()
        if session.store.covers(config.digest, ByteRange(0, max(config.size, 1))):
            lacking = []  # it is here at once
        if lacking and session.options.jobs > 1:  # otherwise the config would wait for it
            self._layers().inspect(lacking[:1])  # by the connection that is open
        session.pool.submit("fetch", lambda: found.append(self._documents.config(config)))
        if lacking:
            self._layers().inspect(lacking)
        session.wait(until=lambda: bool(found))
        return found[0]

    def _list_layers(self, manifest: Manifest, diff_ids: tuple[Digest, ...]) -> None:
        receipt = self._session.receipt
        receipt.list_layers(manifest, diff_ids, [kind_of(layer) for layer in manifest.layers])
        listed: set[tuple[Digest, Digest]] = set()
        for layer, diff_id, entry in zip(manifest.layers, diff_ids, receipt.layers, strict=True):
            if self._session.is_proved(layer, diff_id):
                entry.mode, entry.cached_bytes = "cached", layer.size
            elif (layer.digest, diff_id) in listed:
                entry.mode = "cached"  # the same layer again
            listed.add((layer.digest, diff_id))

    def _warn(self, text: str) -> None:
        warnings = self._session.receipt.warnings
        if text not in warnings:  # a pull that repairs says it again
            warnings.append(text)
            self._session.emit(Warned(text))
