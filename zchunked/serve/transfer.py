"""A stored image into an engine of this machine: pulled from a registry on loopback that lives for this transfer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from zchunked.download.workers import WorkerPool
from zchunked.errors import LocalError
from zchunked.export.archives import write_docker_archive
from zchunked.export.engines import REPOSITORY, Engine
from zchunked.export.names import names_of
from zchunked.interfaces import Source
from zchunked.oci.platform import Platform
from zchunked.oci.reference import Reference
from zchunked.options import Options
from zchunked.receipt import Export
from zchunked.serve.policy import Allowed
from zchunked.serve.settings import Settings
from zchunked.serve.wiring import serving
from zchunked.sources.offline import OfflineSource
from zchunked.sources.traffic import Traffic
from zchunked.store import Store
from zchunked.store.images import StoredImage


def deliver(store: Store, image: StoredImage, engine: Engine, *, load: bool = False) -> Export:
    """Give the engine the image, under the name that was asked for or the one it was pulled by.

    Args:
        store: holds the image, proved.
        image: what to give.
        engine: found to answer.
        load: stream an archive into the engine even where it could pull from here.

    Raises LocalError with what the engine said, IntegrityError for damage in the store.
    """
    name = names_of(image.name, engine.target.name).full
    if name is None:
        raise LocalError(
            f"--to {engine.target.text}: {image.name} has no name that an engine takes; say one after the colon"
        )
    whole = all(store.is_whole(layer.digest) for layer in image.documents.manifest.layers)
    if load or engine.is_remote or not whole:
        with engine.loading() as sink:
            write_docker_archive(store, image, sink, names_of(image.name, name))
        return Export(engine.target.text, None)
    _mark_config(store, image)
    engine.clean()
    _with_door(store, lambda address: engine.pull(address, image.documents.manifest_digest, name))
    return Export(engine.target.text, image.documents.manifest_digest)


def _mark_config(store: Store, image: StoredImage) -> None:
    """The door hands out what is marked as whole; a pull marks layers alone."""
    config = image.documents.manifest.config
    if not store.is_whole(config.digest):
        store.set_whole(config.digest, len(image.config_data))  # `load` has just held it against its digest


def _with_door(store: Store, work: Callable[[str], None]) -> None:
    """Call `work` with the address of a registry that holds what the store holds, on this thread."""
    host, _, _ = REPOSITORY.partition("/")
    settings = Settings(
        ("127.0.0.1", 0), allowed=Allowed(frozenset()), upstreams={host: "localhost"}, offline=True, prefetch=False
    )

    def opened(reference: Reference) -> tuple[Source, Traffic]:
        return OfflineSource(str(reference)), Traffic(time.monotonic)

    stop = threading.Event()
    with (
        serving(
            settings, store, opened, Options(Platform("", "")), access=lambda _: None, log=lambda _: None, threads=16
        ) as server,
        WorkerPool({"door": 1}, stop) as workers,
    ):
        address = "{}:{}".format(*server.open())
        workers.submit("door", server.serve)
        try:
            work(address)
        finally:
            server.stop()
