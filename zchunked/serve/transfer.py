"""Give a stored image to an engine of this machine: it pulls from a registry on loopback, or loads an archive."""

from __future__ import annotations

from zchunked.errors import LocalError
from zchunked.export.archives import write_docker_archive
from zchunked.export.engines import REPOSITORY, Engine
from zchunked.export.names import names_of
from zchunked.receipt import Export
from zchunked.serve.loopback import with_registry
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
    digest, (host, _, _) = image.documents.manifest_digest, REPOSITORY.partition("/")
    with_registry(store, host, lambda address: engine.pull(address, digest, name))
    return Export(engine.target.text, image.documents.manifest_digest)


def _mark_config(store: Store, image: StoredImage) -> None:
    """The registry hands out what is marked as whole; a pull marks layers alone."""
    config = image.documents.manifest.config
    if not store.is_whole(config.digest):
        store.set_whole(config.digest, len(image.config_data))  # `load` has just held it against its digest
