"""Share one karma between all pulls from an upstream host."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zchunked.download.retries.karma import SharedKarma


class HostKarma:
    """Thread-safe. A host without pulls has no karma: the next pull starts with full patience."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`patience` in seconds."""
        self._patience, self._clock = patience, clock
        self._lock = threading.Lock()
        self._shared: dict[str, tuple[SharedKarma, int]] = {}

    @contextmanager
    def of(self, host: str) -> Iterator[SharedKarma]:
        """The karma that pulls from this host share, while the block lasts."""
        with self._lock:
            karma, count = self._shared.get(host) or (SharedKarma(self._patience, self._clock), 0)
            self._shared[host] = karma, count + 1
        try:
            yield karma
        finally:
            with self._lock:
                _, count = self._shared.pop(host)
                if count > 1:
                    self._shared[host] = karma, count - 1
