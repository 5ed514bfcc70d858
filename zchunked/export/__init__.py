"""What the person gets: an image from the store, written where and how they asked."""

from zchunked.export.destination import Destination, parse_destination
from zchunked.export.layers import DamagedLayerError
from zchunked.export.write import check_target, export

__all__ = ["DamagedLayerError", "Destination", "check_target", "export", "parse_destination"]
