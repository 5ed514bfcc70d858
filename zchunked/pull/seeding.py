"""Import seeds before planning: chunks of files on this machine need not be fetched."""

from __future__ import annotations

from collections.abc import Iterable

from zchunked.pull.layer import LayerTask
from zchunked.pull.session import PullSession


def take_seeds(session: PullSession, tasks: Iterable[LayerTask]) -> None:
    """Fill the store with what seeds hold of the layers' contents."""
    from zchunked.seeds import import_seeds  # noqa: PLC0415 - only needed with seeds

    layers = [task.index for task in tasks if task.index and task.index.tarsplit]
    stop, emit, tick = session.stop, session.emit, session.tick
    seeds, pool = session.options.seeds, session.pool
    import_seeds(seeds, layers, session.store, pool, stop=stop, emit=emit, tick=tick)
