"""Blobs of a running pull: reading what is here of each, and whether it is proved."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zchunked.errors import IntegrityError
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.images import StoredImage

if TYPE_CHECKING:
    from zchunked.layers.assemble import Assembly
    from zchunked.layers.rebuild import Arrived
    from zchunked.layers.stand_ins import StandIns

Through = Callable[[Iterator[bytes]], Iterator[bytes]]
"""Passes blocks on as they are."""


@dataclass(slots=True)
class _Blob:
    """`rounds`: how often it was wrong and fetched anew."""

    assembly: Assembly | None = None
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
        self.give_way: Callable[[], None] = lambda: None
        """Called by a worker before it proves the next block; it waits there for readers."""
        self.copying: Callable[[Digest], AbstractContextManager[Through]] = lambda _: nullcontext(
            _unchanged
        )
        """A context that a worker enters while it proves a blob: what it yields gets all blocks.

        An exception inside says that they were wrong.
        """

    # ── for the workers ──

    def change(self) -> None:
        """More can be read."""
        self.on_change()

    def assembly(
        self, store: Store, layer: Descriptor, stand_ins: Callable[[], StandIns], arrived: Arrived
    ) -> tuple[Assembly, Callable[[Iterator[bytes]], None]]:
        """A blob about to be assembled, and the check of its blocks, as `check_blob`."""
        from zchunked.layers.assemble import Assembly, check_blob  # noqa: PLC0415 - with `Layers`

        made = Assembly(store, layer, stand_ins, arrived)
        with self._lock:
            blob = self._blobs.setdefault(layer.digest, _Blob())
            blob.assembly = made
        return made, lambda blocks: check_blob(self._noted(blocks), layer)

    def _noted(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.change()
            self.give_way()
            yield block

    def prove(self, digest: Digest) -> None:
        """The blob's digest is right."""
        with self._lock:
            self._blobs.setdefault(digest, _Blob()).is_proved = True
        self.change()

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

    def read(self, store: Store, digest: Digest, start: int, end: int) -> bytes:
        """What is here from `start` on, at most up to `end`: stored, or standing in.

        IntegrityError where it has gone meanwhile.
        """
        blob = self._blobs.get(digest)
        assembly = blob.assembly if blob is not None else None
        if assembly is None:
            gaps = store.missing(digest, [ByteRange(start, end)])
            upto = gaps[0].start if gaps else end
            return store.read(digest, start, upto) if start < upto else b""
        with suppress(IntegrityError):
            return assembly.read(start, end)
        upto = assembly.here(start, end)
        return assembly.read(start, upto) if start < upto else b""


def _unchanged(blocks: Iterator[bytes]) -> Iterator[bytes]:
    return blocks
