"""Give an image to engines of this machine: they pull it while it is pulled, or load an archive."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

from zchunked.download.workers import WorkerPool
from zchunked.errors import DamagedLayerError, LocalError, ZPullError
from zchunked.export.engines.engine_commands import Engine, Offer
from zchunked.export.engines.loading import load_into, name_in
from zchunked.layers.proof import is_intact
from zchunked.pull.partial_blobs import PartialBlobs
from zchunked.receipt import Export
from zchunked.serve.api.streams import Flight
from zchunked.serve.loopback import LoopbackRegistry
from zchunked.store import Store
from zchunked.store.images import StoredImage

_LOOK_SECONDS = 0.2


class Handover:
    """Engines pull an image from here, once its manifest is known, until this is closed.

    Made and closed by any thread; what it does meanwhile is done by workers of its own.
    """

    def __init__(self, store: Store, image: str, engines: Sequence[Engine]) -> None:
        """`image`: as it is pulled. Raises LocalError where an engine has no name for it."""
        self._store = store
        self._names = {engine: name_in(engine, image) for engine in engines}
        self._image: StoredImage | None = None
        self._loopback: LoopbackRegistry | None = None
        self._flight: Flight | None = None
        self._done = {engine: threading.Event() for engine in engines}
        self._waited_for = set(engines)
        self._begun: set[Engine] = set()
        self._failures: dict[Engine, ZPullError] = {}
        self._stop = threading.Event()
        self._stack = ExitStack()

    def start(self) -> None:
        """Start engines for which a name is enough.

        podman takes 0.1 s until it asks for a manifest, as a pull does until it has a source. The
        others start when the image is known. Raises LocalError where nothing can be served.
        """
        loopback = self._open()
        for engine in self._names:
            if engine.may_start_early:
                self._submit(engine, loopback.offer)

    def follow(self, partial_blobs: PartialBlobs) -> None:
        """After `start`: give the engines what a pull, which has not begun, will bring."""
        loopback = self._loopback
        assert loopback is not None

        def begin(image: StoredImage) -> None:
            flight = self._flight = Flight(image.name, image.documents.manifest_digest)
            flight.follow(partial_blobs)
            self._give(loopback, image)

        partial_blobs.on_image = begin

    def begin(self, image: StoredImage) -> None:
        """Let the engines pull a stored image. Raises LocalError where nothing can be served."""
        self._give(self._open(), image)

    def _open(self) -> LoopbackRegistry:
        loopback = self._loopback = self._stack.enter_context(LoopbackRegistry(self._store))
        self._workers = self._stack.enter_context(
            WorkerPool({"engines": len(self._names)}, threading.Event())
        )
        self._stack.callback(self._stop.set)  # before the workers are waited for
        return loopback

    def _give(self, loopback: LoopbackRegistry, image: StoredImage) -> None:
        config = image.documents.manifest.config
        # only what is whole is handed out, and a pull marks layers alone
        if not self._store.is_whole(config.digest):
            self._store.set_whole(config.digest, len(image.config_data))
        self._image = image
        loopback.give(image, self._flight)
        for engine in self._names:
            if not _takes_from_here(engine, image):
                self._done[engine].set()
            elif engine not in self._begun:
                self._submit(engine, _offered(loopback, image))

    def _submit(self, engine: Engine, offer: Offer) -> None:
        self._begun.add(engine)
        self._workers.submit("engines", lambda: self._pull(offer, engine))

    def _pull(self, offer: Offer, engine: Engine) -> None:
        try:
            engine.clean()
            engine.pull(offer, self._names[engine], self._stop.is_set)
        except ZPullError as error:
            self._failures[engine] = error
        finally:
            self._done[engine].set()

    def pulled(self, failure: ZPullError | None) -> None:
        """The pull has ended: all of the image is stored, or no more of it will be."""
        if self._flight is not None:
            self._flight.end(failure)

    def result(self, engine: Engine) -> Export | None:
        """Wait for the engine; None where it is none of these, or its result was asked for before.

        Raises LocalError with what the engine said, DamagedLayerError.
        """
        image, loopback = self._image, self._loopback
        if engine not in self._waited_for or image is None or loopback is None:
            return None
        self._waited_for.discard(engine)
        while not self._done[engine].wait(_LOOK_SECONDS):
            pass
        failure = self._failures.get(engine)
        # our loopback is not the engine's
        is_apart = failure is not None and not loopback.was_asked
        if is_apart or not _takes_from_here(engine, image):
            return load_into(engine, self._store, image)
        if failure is not None:
            self._again(loopback, image, engine, failure)
        return Export(engine.target.text, image.documents.manifest_digest)

    def _again(
        self, loopback: LoopbackRegistry, image: StoredImage, engine: Engine, failure: ZPullError
    ) -> None:
        """Once more, now that all is here: a slow link may have been too slow for the engine."""
        for layer in image.documents.manifest.layers:
            if not is_intact(self._store, layer.digest, layer.size):
                raise DamagedLayerError(
                    f"layer {layer.digest} is damaged in the store; pull the image again"
                )
        if self._flight is None:
            raise failure
        engine.pull(_offered(loopback, image), self._names[engine], self._stop.is_set)

    def close(self) -> None:
        """May be called twice."""
        if self._flight is not None and not self._flight.is_done:
            self._flight.end(LocalError("the pull has ended"))
        self._stack.close()


def deliver(store: Store, image: StoredImage, engine: Engine, *, load: bool = False) -> Export:
    """Give the engine a stored image, proved.

    `load`: stream an archive into the engine even where it could pull from here.

    Raises LocalError with what the engine said, IntegrityError for damage in the store.
    """
    whole = all(store.is_whole(layer.digest) for layer in image.documents.manifest.layers)
    if load or engine.is_remote or not whole or not _takes_from_here(engine, image):
        return load_into(engine, store, image)
    with closing(Handover(store, image.name, [engine])) as handover:
        handover.begin(image)
        done = handover.result(engine)
    assert done is not None
    return done


def _offered(loopback: LoopbackRegistry, image: StoredImage) -> Offer:
    digest, platform = image.documents.manifest_digest, str(image.config.platform)
    return replace(loopback.offer, digest=digest, platform=platform)


def _takes_from_here(engine: Engine, image: StoredImage) -> bool:
    return engine.unpacks(layer.media_type for layer in image.documents.manifest.layers)
