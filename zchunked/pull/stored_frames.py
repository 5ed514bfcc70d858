"""Index the frames of stored blobs when a pull wants them, or when reading a TOC pays."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError
from zchunked.layers.index_frames import index_later, index_waiting
from zchunked.layers.metadata import read_index
from zchunked.oci.documents import Descriptor
from zchunked.pull.layer import LayerTask
from zchunked.pull.session import PullSession
from zchunked.pull.ways import FASTER_WHOLE, is_worth_reading
from zchunked.ranges import total

# Blobs whose frames may wait until a pull wants them: each of some 100,000 files costs it 1.1 s
_UNINDEXED = 2


class StoredFrames:
    """Those of a pull's store. Thread-safe."""

    def __init__(self, session: PullSession) -> None:
        self._session, self._store, self._limits = session, session.store, session.options.limits
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, str]] = deque()  # blobs, each with a manifest that lists it
        self._running = 0

    @property
    def are_indexed(self) -> bool:
        """Whether all those that were asked for are in the index."""
        return not self._running

    def prepare(self, *, may_wait: bool) -> None:
        """Index those of blobs that nobody has asked for so far; `may_wait`: but a few of them,
        which may be no use.
        """
        self._waiting = deque(self._store.frames.unindexed())
        self._index(len(self._waiting) - (_UNINDEXED if may_wait else 0))

    def skip(self, layer: Descriptor, toc_bytes: int) -> str | None:
        """Why a TOC is not worth being read, or None. The first that is has all frames indexed."""
        conditions = self._session.conditions
        here = total(self._store.covered(layer.digest))
        if here < toc_bytes and not conditions.is_rate_known:
            # for now: the first bytes say more of the connection than of the link
            return FASTER_WHOLE
        means = conditions.now()
        if not is_worth_reading(toc_bytes, layer.size - here, means.link, means.costs):
            return FASTER_WHOLE
        self.index_all()
        return None

    def index_all(self) -> None:
        self._index(len(self._waiting))

    def index_later(self, layers: Iterable[Descriptor], manifest: str) -> None:
        """Note layers that were fetched whole: their frames are indexed when first wanted."""
        index_later(self._store, layers, manifest)

    def read_late(self, task: LayerTask, look_up: Callable[[LayerTask], None]) -> None:
        """Have the TOC read of a layer that was to come whole, and what stands in for its rest
        looked up.
        """

        def work() -> None:
            with suppress(FormatError, IntegrityError, UnsupportedLayerError):
                if task.contents is None:
                    task.learn(read_index(self._store, task.layer, self._limits))
                look_up(task)

        self.index_all()
        self._session.pool.submit("read", work)

    def _index(self, count: int) -> None:
        with self._lock:
            blobs = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            self._running += bool(blobs)

        def work() -> None:
            index_waiting(self._store, blobs, self._limits)
            with self._lock:
                self._running -= 1

        if blobs:
            # Before the TOCs of this pull: two in memory at once are too many
            self._session.pool.submit("read", work)
