"""The store: the registry's own bytes, dense, with an extent map in SQLite."""

from zchunked.store.chunks import ChunkLocation
from zchunked.store.store import Store

__all__ = ["ChunkLocation", "Store"]
