"""Writers of the workers: each appends to one file, of the blob that it fetches."""

from __future__ import annotations

import threading

from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.store import Store
from zchunked.store.files.writer import Writer


class Writers:
    """One pull's writers. `of` and `close_own` are for the worker, the others for any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._own = threading.local()
        self._lock = threading.Lock()
        self._open: list[Writer] = []

    def of(self, blob: Descriptor) -> Writer:
        """The calling worker's writer for this blob; closes the one it had for another blob."""
        own: tuple[Digest, Writer] | None = getattr(self._own, "writer", None)
        # otherwise an earlier round closed it
        if own is not None and own[0] == blob.digest and own[1] in self._open:
            return own[1]
        self.close_own()
        writer = self._store.writer(blob.digest, blob.size)
        self._own.writer = (blob.digest, writer)
        with self._lock:
            self._open.append(writer)
        return writer

    def close_own(self) -> None:
        """Commit what the calling worker wrote."""
        own: tuple[Digest, Writer] | None = getattr(self._own, "writer", None)
        self._own.writer = None
        if own is not None:
            with self._lock:
                if own[1] not in self._open:
                    return
                self._open.remove(own[1])
            own[1].close()

    def commit_early(self) -> None:
        """Sync what arrived to the disk, so that the workers need not stop reading for it."""
        with self._lock:
            writers = list(self._open)
        for writer in writers:
            writer.commit_early()

    def close(self) -> Exception | None:
        """Commit what arrived; returns the first failure. Call when no worker runs."""
        with self._lock:
            writers, self._open = self._open, []
        failure: Exception | None = None
        for writer in writers:
            try:
                writer.close()
            except Exception as error:  # noqa: BLE001 - the others still have bytes to commit
                failure = failure or error
        return failure
