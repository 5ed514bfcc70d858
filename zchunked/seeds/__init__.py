"""Seeds: folders, archives and OCI layouts of this machine whose files may stand in for chunks of a
layer.
"""

from zchunked.seeds.importer import import_seeds

__all__ = ["import_seeds"]
