"""What the person gets: an image from the store, written where and how they asked."""

from zchunked.exports.aside import Aside
from zchunked.exports.content import DamagedLayerError
from zchunked.exports.destination import Destination, parse_destination
from zchunked.exports.write import export

__all__ = ["Aside", "DamagedLayerError", "Destination", "export", "parse_destination"]
