"""A push, the whole story: what the registry lacks of the blobs, several at a time, then the documents in order."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from zchunked.download.retry import Chameleon
from zchunked.download.watchdog import Watchdog
from zchunked.download.workers import WorkerPool
from zchunked.errors import InterruptedPullError
from zchunked.events import Event, Noted, Planned
from zchunked.export.shipment import Parcel, Shipment
from zchunked.interfaces import Emit
from zchunked.oci.digest import short
from zchunked.oci.documents import Descriptor
from zchunked.options import Patience, StallLimits
from zchunked.push.upload import BlobUpload, ChunkSizes, Pushed, UploadMemory
from zchunked.sources.registry_upload import RegistryUploads
from zchunked.sources.traffic import Traffic


class Pusher:
    """One shipment to one repository. `run` once, on the caller's thread, which also gets all events."""

    def __init__(
        self,
        registry: RegistryUploads,
        memory: UploadMemory,
        *,
        jobs: int,
        patience: Patience,
        show: Emit,
        deadline: float | None = None,
        mount_from: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mount_from`: repositories there that may have the blobs. `deadline`: seconds from now."""
        self._registry, self._memory, self._jobs, self._show = registry, memory, jobs, show
        self._mount_from = tuple(mount_from)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._chameleon = Chameleon(patience, jobs, self._events.put, self._stop, clock=clock)
        self._pace = Watchdog(StallLimits(deadline), Traffic(clock), self._chameleon, clock)
        self._sizes = ChunkSizes()
        self._lacking: list[Parcel] = []
        self.pushed = Pushed()
        """How far it has come; true at any time."""

    @property
    def retries(self) -> int:
        return self._chameleon.retries

    def run(self, shipment: Shipment, tag: str | None) -> None:
        """What arrived stays; the same call goes on where this one ended, in another process too.

        Raises AccessDeniedError, TransferError, DamagedLayerError, InterruptedPullError.
        """
        pool = WorkerPool({"send": self._jobs}, self._stop)
        try:
            with pool:
                try:
                    self._push(pool, shipment, tag)
                finally:
                    self._stop.set()
        except KeyboardInterrupt as error:
            raise InterruptedPullError("interrupted") from error
        finally:
            self._stop.set()
            self._tick()

    def _push(self, pool: WorkerPool, shipment: Shipment, tag: str | None) -> None:
        parcels = list({parcel.blob.digest: parcel for parcel in shipment.parcels}.values())
        for number, parcel in enumerate(parcels):
            pool.submit("send", partial(self._look, parcel))
            if not number:  # it learns how to speak to the registry, for all of them
                pool.wait(self._tick)
        pool.wait(self._tick)
        lacking = sum(parcel.blob.size for parcel in self._lacking)
        self._show(Planned(self.pushed.skipped_bytes + lacking, self.pushed.skipped_bytes, lacking))
        for parcel in sorted(self._lacking, key=lambda one: -one.blob.size):  # or the largest would end alone
            pool.submit("send", partial(self._bring, parcel))
        pool.wait(self._tick)
        for manifest, data in shipment.documents:
            name = tag if manifest is shipment.root else None
            pool.submit("send", partial(self._describe, manifest, data, name))
            pool.wait(self._tick)

    def _look(self, parcel: Parcel) -> None:
        is_there = self._chameleon.run(lambda: self._registry.has(parcel.blob))
        with self._lock:
            if is_there:
                self.pushed.skipped += 1
                self.pushed.skipped_bytes += parcel.blob.size
            else:
                self._lacking.append(parcel)

    def _bring(self, parcel: Parcel) -> None:
        upload = BlobUpload(parcel, self._registry, self._memory, self._sizes, self._chameleon)
        try:
            self._chameleon.run(partial(upload.go_on, self._mount_from), lambda: upload.brought)
            with self._lock:
                self.pushed.blobs += not upload.is_mounted
                self.pushed.mounted += upload.is_mounted
        finally:
            with self._lock:
                self.pushed.sent += upload.sent
                self.pushed.sent_twice += upload.sent_twice
                self.pushed.resumed_bytes += upload.resumed
        how = "mounted" if upload.is_mounted else "sent"
        self._events.put(Noted(f"{how} {short(parcel.blob.digest)}, {parcel.blob.size} bytes"))

    def _describe(self, manifest: Descriptor, data: bytes, tag: str | None) -> None:
        self._chameleon.run(lambda: self._registry.put_manifest(manifest, data, tag))
        self._chameleon.gain(len(data))

    def _tick(self) -> None:
        while not self._events.empty():
            self._show(self._events.get())
        if not self._stop.is_set():
            self._pace.check(is_fetching=False)
