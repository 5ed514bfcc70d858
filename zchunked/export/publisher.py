"""Publish an image's blobs to a web server's folder or a bucket, `index.json` last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from zchunked.download.retries.retry import Stopped
from zchunked.download.session import Session
from zchunked.download.workers import WorkerPool
from zchunked.errors import InterruptedPullError
from zchunked.events import Noted
from zchunked.export.images.oci_layout import LAYOUT_FILE, index_with
from zchunked.export.shipment import Parcel, Shipment
from zchunked.interfaces import Emit
from zchunked.oci.digest import short
from zchunked.options import Patience, StallLimits
from zchunked.sources.traffic import Traffic

Pieces = Iterable[bytes | memoryview]
_INDEX = "index.json"


class Target(Protocol):
    """Named objects that appear whole or not at all. Tries once; thread-safe, except `held`.

    Raises LocalError, AccessDeniedError, TransientError (worth another try) or TransferError (not
    worth it).
    """

    name: str
    """What messages call the place."""

    def held(self, report: Callable[[str], None]) -> AbstractContextManager[None]:
        """A context for one publication; may wait for another publisher, and reports that.

        For one thread.
        """

    def size_of(self, path: str) -> int | None:
        """An object's bytes; None where there is no such object."""

    def put(self, path: str, size: int, pieces: Pieces) -> None:
        """What `pieces` raises is raised, and the object stays as it was."""

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a small object by what `change` makes of it (None: it is absent), atomically.

        `change` may be called several times; returning what it was given ends it.
        """

    def close(self) -> None: ...


@dataclass(slots=True)
class Sent:
    """What went up, and what was there. Blobs, and bytes of blobs."""

    blobs: int = 0
    bytes: int = 0
    there: int = 0
    there_bytes: int = 0


class Publisher:
    """One image to one target. `run` once, on the caller's thread, which also gets all events."""

    def __init__(
        self,
        target: Target,
        *,
        jobs: int,
        patience: Patience,
        show: Emit,
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline`: seconds from now, after which it gives up."""
        self._target, self._lock = target, threading.Lock()
        stall_limits = StallLimits(deadline)
        self._session = Session(
            Traffic(clock),
            jobs=jobs,
            patience=patience,
            stall_limits=stall_limits,
            show=show,
            clock=clock,
        )
        self._chameleon = self._session.chameleon
        self.sent = Sent()
        """How far it got; true at any time."""

    def run(self, shipment: Shipment, tag: str | None) -> None:
        """Send the blobs side by side, then the index.

        Objects that are there in the right size are skipped. A reader meanwhile sees the index as
        it was. DamagedLayerError when the store is not what was proved.
        """
        session = self._session
        try:
            with (
                self._target.held(lambda text: session.show(Noted(text))),
                session.workers(send=session.jobs) as workers,
            ):
                self._publish(workers, shipment, tag)
        except KeyboardInterrupt as error:  # while it waited for another publisher
            raise InterruptedPullError("interrupted") from error

    def _publish(self, workers: WorkerPool, shipment: Shipment, tag: str | None) -> None:
        parcels = [*shipment.parcels, *(Parcel.of(blob, data) for blob, data in shipment.documents)]
        workers.submit("send", self._mark)
        self._session.wait()
        for parcel in {parcel.blob.digest: parcel for parcel in parcels}.values():
            workers.submit("send", partial(self._send, parcel))
        self._session.wait()
        listed, platform = shipment.root, shipment.platform
        change = partial(
            index_with, manifest=listed, platform=platform, tag=tag, where=self._target.name
        )
        workers.submit(
            "send", lambda: self._chameleon.run(lambda: self._target.update(_INDEX, change))
        )
        self._session.wait()

    def _mark(self) -> None:
        """Write the file that marks a layout first, so that a half-filled one is recognised."""
        path, size = "oci-layout", len(LAYOUT_FILE)
        if self._chameleon.run(lambda: self._target.size_of(path)) is None:
            self._chameleon.run(lambda: self._target.put(path, size, [LAYOUT_FILE]))

    def _send(self, parcel: Parcel) -> None:
        blob, path = parcel.blob, parcel.path
        if self._chameleon.run(lambda: self._target.size_of(path)) == blob.size:
            with self._lock:
                self.sent.there += 1
                self.sent.there_bytes += blob.size
            return
        self._chameleon.run(
            lambda: self._target.put(path, blob.size, self._watched(parcel.pieces(0)))
        )
        self._chameleon.gain(blob.size)
        with self._lock:
            self.sent.blobs += 1
            self.sent.bytes += blob.size
        self._session.emit(Noted(f"sent {short(blob.digest)}, {blob.size} bytes"))

    def _watched(self, pieces: Pieces) -> Iterator[bytes | memoryview]:
        for piece in pieces:
            if self._session.stop.is_set():
                raise Stopped
            yield piece
