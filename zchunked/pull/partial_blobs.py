"""Blobs of a running pull: reading what is here of each, and whether it is proved."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
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
_RECENT = 8  # blocks of half a MiB that a reader may be behind the proof
_NEAR = 1 << 20  # that it may be before it, and waits for it


@dataclass(slots=True)
class _Blob:
    """`rounds`: how often it was wrong and fetched anew.

    `recent`: blocks that the proof read last, each with its place. `proof_at`: what it reads next;
    None where it does not.
    """

    assembly: Assembly | None = None
    rounds: int = 0
    is_proved: bool = False
    recent: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    proof_at: int | None = None


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
        return made, lambda blocks: check_blob(self._noted(blob, blocks), layer)

    def _noted(self, blob: _Blob, blocks: Iterator[bytes]) -> Iterator[bytes]:
        at = blob.proof_at = 0
        try:
            for block in blocks:
                blob.recent.append((at, block))
                at += len(block)
                blob.proof_at = None
                self.change()
                self.give_way()
                blob.proof_at = at
                yield block
        finally:
            blob.proof_at = None
            blob.recent.clear()

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

    def follow(self, store: Store, digest: Digest, start: int, end: int) -> bytes:
        """As `read`, but what the proof reads next is here once it has read it.

        One gathers for both: of 200 MB in 190,000 frames that takes half a second of a core.
        """
        blob = self._blobs.get(digest)
        if blob is not None:
            proof_at = blob.proof_at
            for at, block in tuple(blob.recent):
                if at <= start < at + len(block):
                    return block[start - at : end - at]
            if proof_at is not None and 0 <= start - proof_at < _NEAR:
                return b""
        return self.read(store, digest, start, end)

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
