"""The store's public face: blobs by digest and span, chunks by digest, images by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from zchunked.findings import Image
from zchunked.oci.digest import Digest
from zchunked.store.chunks import Chunks
from zchunked.store.index import places
from zchunked.store.small_objects import SmallObjects


class Store(SmallObjects, Chunks):
    """The store. Thread- and process-safe. `close` it when done; a kill leaves it just as sound."""

    def reopen(self) -> None:
        """After `close`: as a new store over the same folder; nothing is kept in memory."""
        Store.__init__(self, self.folder)

    # ── layers, images ──

    def proof(self, layer: Digest, diff_id: Digest) -> int | None:
        """The tar's size if the layer was proved against the diff ID from what is here."""
        self._locks.pin(layer)
        return self._index.proof(layer, diff_id)

    def is_pulled(self, layer: Digest, diff_id: Digest) -> bool:
        """Whether the layer was proved by its blob's digest or by its diff ID."""
        return self.is_whole(layer) or self.proof(layer, diff_id) is not None

    def proved_by(
        self, layer: Digest, diff_id: Digest
    ) -> Literal["blob", "diff_id", "both"] | None:
        """Which of the layer's digests were proved over what is here."""
        is_tar = self.proof(layer, diff_id) is not None
        if self.is_whole(layer):
            return "both" if is_tar else "blob"
        return "diff_id" if is_tar else None

    def is_proved(self, layer: Digest) -> bool:
        """Whether the layer is proved against any diff ID."""
        self._locks.pin(layer)
        return self._index.is_proved(layer)

    def add_proof(
        self, layer: Digest, diff_id: Digest, tar_size: int, blobs: Iterable[Digest] = ()
    ) -> None:
        """Record a diff ID that was proved.

        `blobs`: those that hold the chunks of a layer that is stored in parts; the proof goes when
        theirs do.
        """
        self._index.add_proof(layer, diff_id, tar_size, blobs)
        self._proved_at[layer] = self._session.files

    def drop_proofs(self, layer: Digest) -> None:
        """The layer is to be proved again when next pulled."""
        self._index.drop_proofs(layer)

    def set_image(self, name: str, platform: str, manifest: Digest, root: Digest) -> None:
        self._index.set_ref(name, platform, manifest, root)

    def places(self) -> list[tuple[str, str, int]]:
        """(blob, byte file, bytes that it has there): sums, as far as they are remembered."""
        return self._index.rows(places.QUERY)

    def images(self) -> list[Image]:
        """Newest first."""
        return self._index.images()
