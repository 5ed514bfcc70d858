"""Take turns with other pulls on the store: wait for what another one is downloading into it.

A pull claims the repository and each layer that it lacks, in the order of their digests, so that no
two wait for each other; the system drops the claims of a process that dies, and the next goes on
with what that had received.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from zchunked.oci.digest import Digest, digest_of
from zchunked.sources.shared_link import LinkShare
from zchunked.store import Store
from zchunked.store.processes.locks import BlobLocks

_LOOK_SECONDS = 0.1
_STALL_SECONDS = 30.0
_WAITING = (
    "another process is downloading parts of this image into the store; waiting to use what it "
    "brings"
)


class Claims:
    """One pull's claims. Methods are for the thread that waits for the pool."""

    def __init__(
        self,
        store: Store,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        link_share: LinkShare | None = None,
    ) -> None:
        """`link_share`: among the pulls of the same command."""
        self._store, self._stop, self._clock, self._link_share = store, stop, clock, link_share
        # Of this pull alone, so that it excludes those of other threads too
        self._locks: BlobLocks | None = None
        self._siblings = link_share.link.claimed if link_share is not None else set()
        self._claimed: list[str] = []
        self._has_reported = False

    def acquire(
        self, repository: str, layers: Iterable[Digest], tick: Callable[[], None], number: int = 0
    ) -> Iterator[str]:
        """Claim all of them; yields notes for people while it waits. `tick` may end that.

        If the other pull receives no byte for half a minute, this one goes on beside it. `number`:
        of this pull in the log. A pull that can resume an interrupted one goes first.
        """
        while self._link_share is not None and not self._link_share.is_next(_LOOK_SECONDS):
            tick()
        if self._store.is_read_only:
            return  # no process downloads into it
        names = sorted({str(digest_of(repository.encode())), *layers})
        self._locks = locks = BlobLocks(self._store.folder / "claims")
        if locks.is_available:
            yield from self._claim(locks, names, tick)
            until = self._clock() + _STALL_SECONDS
            while (
                self._claimed
                and self._clock() < until
                and self._store.pulls.has_heir(number, repository)
            ):
                self._release(locks)
                self._stop.wait(2 * _LOOK_SECONDS)
                yield from self._claim(locks, names, tick)
        # Also without a wait: the other pull may have ended a moment ago
        self._store.catch_up()

    def _claim(self, locks: BlobLocks, names: list[str], tick: Callable[[], None]) -> Iterator[str]:
        for name in names:
            seen, since = -1, self._clock()
            while not locks.exclude([name]):
                if not self._has_reported and name not in self._siblings:
                    yield _WAITING
                    self._has_reported = True
                self._stop.wait(_LOOK_SECONDS)
                tick()
                if (size := self._store.collector().disk_bytes()) != seen:
                    seen, since = size, self._clock()
                elif self._clock() - since > _STALL_SECONDS:
                    yield "that process brings no byte any more; going on without it"
                    return
            self._claimed.append(name)
            self._siblings.add(name)

    def _release(self, locks: BlobLocks) -> None:
        self._siblings.difference_update(self._claimed)
        locks.release(self._claimed)
        self._claimed = []

    def release(self) -> None:
        """Let others go on. May be called twice."""
        if self._locks is not None:
            self._release(self._locks)
            self._locks.close()
            self._locks = None
