"""Follow a pull: how far each blob is put together, so that it can be handed out meanwhile."""

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
    """`upto`: all before it is here. `rounds`: how often what was here of it turned out wrong and
    came anew.
    """

    assembly: Assembly | None = None
    upto: int = 0
    rounds: int = 0
    is_proved: bool = False


class Arriving:
    """Thread-safe. Told by the workers of one pull, asked by those who stream its blobs
    meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[Digest, _Blob] = {}
        self.on_image: Callable[[StoredImage], None] = lambda _: None
        """Called by the pull's thread when manifest and config are in the store, before any layer
        is.
        """
        self.on_change: Callable[[], None] = lambda: None
        """Called by a worker when more can be read, or a blob is proved."""
        self.copying: Callable[[Digest], AbstractContextManager[Through]] = lambda _: nullcontext(
            _unchanged
        )
        """Entered by a worker while it proves a blob: what it yields is given all blocks. An
        exception says that they were wrong.
        """

    # ── told ──

    def assembly(
        self, store: Store, layer: Descriptor, stand_ins: Callable[[], StandIns], arrived: Arrived
    ) -> tuple[Assembly, Callable[[Iterator[bytes]], None]]:
        """A blob that is about to be put together, and what checks its blocks: raises as
        `check_blob` does.
        """
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
        """Its digest is right over what can be read."""
        with self._lock:
            self._blobs.setdefault(digest, _Blob()).is_proved = True
        self.on_change()

    def restart(self, digest: Digest) -> None:
        """It was wrong, and comes anew: whoever has been sent some of it must not be sent the
        rest.
        """
        with self._lock:
            rounds = self._blobs.setdefault(digest, _Blob()).rounds
            self._blobs[digest] = _Blob(rounds=rounds + 1)

    # ── asked ──

    def is_proved(self, digest: Digest) -> bool:
        return digest in self._blobs and self._blobs[digest].is_proved

    def rounds(self, digest: Digest) -> int:
        """Changes when what was read of the blob before is worth nothing."""
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
