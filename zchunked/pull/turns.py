"""Take turns with other processes: what one of them downloads into the store, the others wait for and then use.

A process claims the repository and each layer that it lacks, in the order of their digests, so that no two wait for
each other; the system drops the claims of one that dies, and the next goes on with what that had received.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from zchunked.oci.digest import Digest, digest_of
from zchunked.store import Store

_LOOK_SECONDS = 0.1
_STALL_SECONDS = 30.0
_WAITING = "another process is downloading parts of this image into the store; waiting to use what it brings"


class Turns:
    """Those of one pull. Methods are for the thread that waits for the crew."""

    def __init__(self, store: Store, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._stop, self._clock = store, stop, clock
        self._claimed: list[str] = []

    def take(self, repository: str, layers: Iterable[Digest], tick: Callable[[], None]) -> Iterable[str]:
        """Claim them all; yields a note for people when that has to wait. `tick` may end it by raising.

        Where the one that is waited for brings no byte for half a minute, the pull goes on beside it.
        """
        claims = self._store.claims
        if not claims.works:
            return
        is_told = False
        for name in sorted({str(digest_of(repository.encode())), *layers}):
            seen, since = -1, self._clock()
            while not claims.exclude([name]):
                if not is_told:
                    yield _WAITING
                    is_told = True
                self._stop.wait(_LOOK_SECONDS)
                tick()
                if (size := self._store.collector().disk_bytes()) != seen:
                    seen, since = size, self._clock()
                elif self._clock() - since > _STALL_SECONDS:
                    yield "that process brings no byte any more; going on without it"
                    self._store.catch_up()
                    return
            self._claimed.append(name)
        self._store.catch_up()  # also where nobody was waited for: the last one may have ended a moment ago

    def give_back(self) -> None:
        """Let others go on."""
        self._store.claims.release(self._claimed)
        self._claimed = []
