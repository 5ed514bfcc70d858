"""Claim a blob whose host serves no ranges: one worker fetches it whole, for all of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from zchunked.download.retry import Stopped
from zchunked.oci.digest import Digest


class WholeBlobs:
    """The claims of one pull. Thread-safe; a claim belongs to the thread that made it."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._holders: dict[Digest, int] = {}
        self._checks: Counter[Digest] = Counter()
        self.without_ranges: set[Digest] = set()
        """Blobs that turned out to come whole or not at all."""

    def is_taken(self, blob: Digest) -> bool:
        return blob in self._holders

    def is_mine(self, blob: Digest) -> bool:
        return self._holders.get(blob) == threading.get_ident()

    def claim(self, blob: Digest) -> bool | None:
        """True: the caller's from now on. None: it was before. False: it is another worker's."""
        with self._changed:
            if blob in self._holders:
                return None if self.is_mine(blob) else False
            self._holders[blob] = threading.get_ident()
            self.without_ranges.add(blob)
            return True

    def release(self, blob: Digest) -> None:
        with self._changed:
            del self._holders[blob]

    @contextmanager
    def checking(self, blob: Digest) -> Iterator[bool]:
        """Hold off the claim while parts are checked; False where another worker has claimed it."""
        with self._changed:
            may = blob not in self._holders
            self._checks[blob] += may
        try:
            yield may
        finally:
            with self._changed:
                self._checks[blob] -= may
                self._changed.notify_all()

    def wait_for_checks(self, blob: Digest) -> None:
        """Wait until no worker checks parts of it. Raises Stopped when the pull has ended."""
        with self._changed:
            while self._checks[blob]:
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(0.2)
