"""Seeds: folders, archives and OCI layouts of this machine whose files provide chunks of layers."""

from zchunked.seeds.importer import import_seeds

__all__ = ["import_seeds"]
