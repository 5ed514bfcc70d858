"""Stream a stored image as an archive into an engine's `load`."""

from __future__ import annotations

from zchunked.errors import LocalError
from zchunked.export.engines.engine_commands import Engine
from zchunked.export.images.names import names_of
from zchunked.receipt import Export
from zchunked.store import Store
from zchunked.store.images import StoredImage


def name_in(engine: Engine, image: str) -> str:
    """The requested name, or the one it was pulled by. LocalError if neither is accepted."""
    name = names_of(image, engine.target.name).full
    if name is None:
        raise LocalError(
            f"--to {engine.target.text}: {image} has no name that an engine takes; say one after "
            "the colon"
        )
    return name


def load_into(engine: Engine, store: Store, image: StoredImage) -> Export:
    """Stream it. Raises LocalError with what the engine said, DamagedLayerError."""
    from zchunked.export.images.archives import write_docker_archive  # noqa: PLC0415 - seldom needed

    name = name_in(engine, image.name)
    with engine.loading() as sink:
        write_docker_archive(store, image, sink, names_of(image.name, name))
    return Export(engine.target.text, None)
