"""What the person gets: an image from the store, written where and how they asked."""

from zchunked.export.check import check_target
from zchunked.export.destination import Destination, parse_destination
from zchunked.export.layers import DamagedLayerError
from zchunked.export.write import export

__all__ = ["DamagedLayerError", "Destination", "check_target", "export", "parse_destination"]
