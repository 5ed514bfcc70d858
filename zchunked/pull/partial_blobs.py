"""Blobs of a running pull: how far each is assembled, and reading it that far."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from zchunked.layers.assemble import Assembly, check_blob
from zchunked.layers.rebuild import Arrived
from zchunked.layers.stand_ins import StandIns
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.store import Store
from zchunked.store.images import StoredImage

Through = Callable[[Iterator[bytes]], Iterator[bytes]]
"""Passes blocks on as they are."""


@dataclass(slots=True)
class _Blob:
    """`upto`: all bytes before it are here. `rounds`: how often it was wrong and fetched anew."""

    assembly: Assembly | None = None
    upto: int = 0
    rounds: int = 0
    is_proved: bool = False


class PartialBlobs:
    """Thread-safe. The workers of one pull report to it; readers that stream its blobs ask it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[Digest, _Blob] = {}
        self.on_image: Callable[[StoredImage], None] = lambda _: None
        """Called by the pull's thread once manifest and config are in the store, and no layer."""
        self.on_change: Callable[[], None] = lambda: None
        """Called by a worker when more can be read, or a blob is proved."""
        self.copying: Callable[[Digest], AbstractContextManager[Through]] = lambda _: nullcontext(
            _unchanged
        )
        """A context that a worker enters while it proves a blob: what it yields gets all blocks.

        An exception inside says that they were wrong.
        """

    # ── for the workers ──

    def assembly(
        self, store: Store, layer: Descriptor, stand_ins: Callable[[], StandIns], arrived: Arrived
    ) -> tuple[Assembly, Callable[[Iterator[bytes]], None]]:
        """A blob about to be assembled, and the check of its blocks, as `check_blob`."""
        made = Assembly(store, layer, stand_ins, arrived)
        with self._lock:
            blob = self._blobs.setdefault(layer.digest, _Blob())
            blob.assembly, blob.upto = made, 0
        return made, lambda blocks: check_blob(self._noted(blob, blocks), layer)

    def _noted(self, blob: _Blob, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            blob.upto += len(block)
            self.on_change()
            yield block

    def prove(self, digest: Digest) -> None:
        """The blob's digest is right."""
        with self._lock:
            self._blobs.setdefault(digest, _Blob()).is_proved = True
        self.on_change()

    def restart(self, digest: Digest) -> None:
        """The blob was wrong and is fetched anew: its readers must not go on with the rest."""
        with self._lock:
            rounds = self._blobs.setdefault(digest, _Blob()).rounds
            self._blobs[digest] = _Blob(rounds=rounds + 1)

    # ── for readers ──

    def is_proved(self, digest: Digest) -> bool:
        return digest in self._blobs and self._blobs[digest].is_proved

    def rounds(self, digest: Digest) -> int:
        """Changes when what was read of the blob before became worthless."""
        return self._blobs[digest].rounds if digest in self._blobs else 0

    def upto(self, digest: Digest) -> int:
        """How far `read` can read."""
        return self._blobs[digest].upto if digest in self._blobs else 0

    def read(self, digest: Digest, start: int, end: int) -> bytes:
        """Bytes before `upto`. IntegrityError where they have gone since."""
        assembly = self._blobs[digest].assembly
        return assembly.read(start, end) if assembly is not None else b""


def _unchanged(blocks: Iterator[bytes]) -> Iterator[bytes]:
    return blocks
