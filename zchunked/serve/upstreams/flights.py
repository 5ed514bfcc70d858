"""One pull per image, for all clients at once; its bytes are streamed as they arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Self

from zchunked.download.workers import WorkerPool
from zchunked.errors import FormatError, TransferError, ZPullError
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.serve.api.streams import Blob, CheckedBlobs, Flight
from zchunked.serve.upstreams.host_karma import HostKarma
from zchunked.serve.upstreams.known_images import KnownImages
from zchunked.serve.upstreams.lease import StoreLease
from zchunked.serve.upstreams.upstream import Upstream
from zchunked.store import Store

_AT_ONCE = 16  # flights; more wait for their turn


class Flights:
    """Thread-safe. A context manager; leaving it ends the pulls, which keep what arrived."""

    def __init__(
        self, store: Store, upstream: Upstream, lease: StoreLease, *, prefetch: bool
    ) -> None:
        """`prefetch`: an image's layers are pulled as soon as its manifest was asked for."""
        self._store, self._upstream, self._lease, self._prefetch = store, upstream, lease, prefetch
        self._images, self._checked = KnownImages(store), CheckedBlobs()
        self._karma = HostKarma(upstream.options.patience.patience)
        self._lock = threading.Lock()
        self._flights: dict[tuple[str, Digest], Flight] = {}
        self._stop = threading.Event()
        upstream.is_over = self._stop.is_set
        self._workers = WorkerPool({"flights": _AT_ONCE, "rest": 1}, self._stop)

    def __enter__(self) -> Self:
        self._workers.__enter__()
        self._workers.submit("rest", lambda: self._lease.watch(self._stop))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._workers.__exit__(*exception)

    def current(self) -> list[Flight]:
        """Pulls that are not done, oldest first."""
        with self._lock:
            return sorted(self._flights.values(), key=lambda flight: flight.began)

    # ── what is known ──

    def learn(self, name: str, what: str, digest: Digest, data: bytes, *, is_wanted: bool) -> None:
        """Note a served manifest: its blobs are of that image. `what`: tag or digest.

        `is_wanted`: a client has got it, not only its head.
        """
        manifest = self._images.learn(name, what, digest, data)
        if manifest is None or not (is_wanted and self._prefetch):
            return
        if not all(self._is_here(blob) for blob in manifest.layers):
            self._image_flight(name, digest)

    def _is_here(self, blob: Descriptor) -> bool:
        return self._store.is_whole(blob.digest)

    # ── blobs ──

    def blob(self, name: str, digest: Digest, *, is_wanted: bool) -> Blob:
        """The blob, stored or arriving. `is_wanted`: its bytes, and not only its size.

        Raises NotFoundError, and what asking the upstream raises.
        """
        here = self._store.whole_size(digest)
        if here is not None:
            return Blob(self._store, digest, here, None, self._checked)
        known = self._images.image_of(name, digest)
        if known is None:
            size = self._upstream.size_of(name, digest)
            return Blob(
                self._store, digest, size, self._blob_flight(name, digest) if is_wanted else None
            )
        image, descriptor = known
        flight = None
        if is_wanted:
            flight = (
                self._image_flight(name, image)
                if self._prefetch
                else self._layer_flight(name, image, digest)
            )
        return Blob(self._store, digest, descriptor.size, flight)

    def part(self, name: str, blob: Blob, spans: Sequence[ByteRange]) -> Blob:
        """Spans of a blob that `blob` gave: without prefetch they alone are fetched."""
        size = blob.size
        is_tail = any(span.end == size for span in spans)  # which has to wait for the proof of all
        if self._prefetch or is_tail or self._images.image_of(name, blob.digest) is None:
            return self.blob(name, blob.digest, is_wanted=True)
        if not self._store.missing(blob.digest, spans):
            return blob
        flight = Flight(name, blob.digest)
        self._submit(flight, lambda one: self._fetch_spans(one, blob, spans))
        return Blob(self._store, blob.digest, size, flight)

    # ── flights ──

    def _image_flight(self, name: str, image: Digest) -> Flight:
        return self._flight(name, image, self._pull_image)

    def _layer_flight(self, name: str, image: Digest, blob: Digest) -> Flight:
        return self._flight(name, blob, lambda flight: self._pull_layer(flight, image, blob))

    def _blob_flight(self, name: str, blob: Digest) -> Flight:
        return self._flight(name, blob, lambda flight: self._fetch_blob(flight, blob))

    def _flight(self, name: str, what: Digest, fly: Callable[[Flight], None]) -> Flight:
        """Start it, unless it is in the air."""
        with self._lock:
            flight = self._flights.get((name, what))
            if flight is not None:
                return flight
            flight = self._flights[name, what] = Flight(name, what)
        self._submit(flight, fly)
        return flight

    def _submit(self, flight: Flight, fly: Callable[[Flight], None]) -> None:
        self._workers.submit("flights", lambda: self._fly(flight, fly))

    def _fly(self, flight: Flight, fly: Callable[[Flight], None]) -> None:
        failure: ZPullError | None = None
        try:
            with self._lease.use(), self._karma.of(flight.name.partition("/")[0]) as flight.karma:
                self._let_settle(flight)
                fly(flight)
        except ZPullError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a fault of ours ends this flight, not the server
            failure = TransferError(f"{flight.name}: {type(error).__name__} in the server: {error}")
        finally:
            with self._lock:
                if self._flights.get((flight.name, flight.what)) is flight:
                    del self._flights[flight.name, flight.what]
            flight.end(failure)

    def _let_settle(self, flight: Flight) -> None:
        """Wait for older pulls of the repository of which clients have got all.

        Only at its end does the store know what a pull brought.
        """
        for other in self.current():
            if other is flight:
                return
            if other.name == flight.name and self._is_handed_out(other):
                while not (other.is_done or self._stop.is_set()):
                    other.wait()

    def _is_handed_out(self, flight: Flight) -> bool:
        layers = self._images.layers_of(flight.what)
        return bool(layers) and all(
            flight.partial_blobs.is_proved(layer) or self._store.is_whole(layer) for layer in layers
        )

    def _pull_image(self, flight: Flight) -> None:
        name, image = flight.name, flight.what
        try:
            self._upstream.pull_image(name, image, self._images.tag_of(name, image), flight)
        except FormatError:
            # an artifact, or an image that only its engine understands: blob by blob
            for blob in self._images.blobs_of(name, image):
                self._fetch_blob(flight, blob.digest)
        else:
            self._mark_config(name, image)

    def _fetch_blob(self, flight: Flight, blob: Digest) -> None:
        self._upstream.fetch_with(flight.name, flight, lambda fetcher: fetcher.fetch(blob))

    def _fetch_spans(self, flight: Flight, blob: Blob, spans: Sequence[ByteRange]) -> None:
        wanted = Descriptor("application/octet-stream", blob.digest, blob.size)
        self._upstream.fetch_with(
            flight.name, flight, lambda fetcher: fetcher.fetch_spans(wanted, spans)
        )

    def _pull_layer(self, flight: Flight, image: Digest, blob: Digest) -> None:
        """One layer the image's way, and nothing else of it."""
        if blob in self._images.layers_of(image):
            try:
                self._upstream.pull_image(flight.name, image, None, flight, only=blob)
            except FormatError:  # as above
                self._fetch_blob(flight, blob)
        else:
            self._fetch_blob(flight, blob)

    def _mark_config(self, name: str, image: Digest) -> None:
        """A pull has proved the config, but only layers are marked as whole."""
        store, most = self._store, self._upstream.options.limits.manifest_bytes
        for blob in self._images.blobs_of(name, image):
            is_small = blob.size <= most and not store.is_whole(blob.digest)
            if is_small and store.get(blob.digest, blob.size) is not None:
                store.set_whole(blob.digest, blob.size)
