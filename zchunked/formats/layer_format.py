"""LayerFormat: the kinds of layers made of frames, zstd:chunked and eStargz.

form = format_of(layer)
span = form.tail(layer.size)                     # eStargz: read it first; None: annotations do
location = form.locate(layer, tail, limits)      # where the TOC lies, and the digest that vouches
reader = form.toc_reader(layer, location, limits)
...reader.feed(piece) for location.toc.span...
toc = reader.finish()
frames = form.frame_map(toc, location, layer.size)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from zchunked.errors import FormatError, UnsupportedLayerError
from zchunked.formats import estargz
from zchunked.formats.annotations import Location, is_estargz, kind_of, locate
from zchunked.formats.budget import ImageBudget
from zchunked.formats.frames import frame_check
from zchunked.formats.frames.frame_map import FrameMap, frame_map
from zchunked.formats.tables.toc import Toc
from zchunked.formats.tables.toc_reader import TocReader
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange


class LayerFormat(Protocol):
    """How to find a layer's frames, and to check one. Pure: bytes in, values out.

    Errors are UnsupportedLayerError where the layer has to come whole, FormatError where it lies,
    IntegrityError (of the reader) where bytes are not what their digest promised.
    """

    @property
    def name(self) -> str:
        """The receipt's word for it."""

    def tail(self, size: int, *, is_thrifty: bool = True) -> ByteRange | None:
        """What of a blob of `size` bytes `locate` has to be given; None: nothing.

        Not `is_thrifty`: rather more than needed, so that the TOC need not be asked for by itself.
        """

    def locate(
        self, layer: Descriptor, tail: bytes = b"", limits: Limits = DEFAULT_LIMITS
    ) -> Location:
        """Where the TOC and the tar-split lie, and what vouches for them."""

    def toc_reader(
        self,
        layer: Descriptor,
        location: Location,
        limits: Limits = DEFAULT_LIMITS,
        budget: ImageBudget | None = None,
    ) -> TocReader:
        """A reader for the bytes of `location.toc.span`.

        `budget`: of the image; None: the layer is all of it.
        """
        return TocReader(layer, location, limits, budget)

    def frame_map(self, toc: Toc, location: Location, size: int) -> FrameMap:
        """The blob as frames that tile it."""
        return frame_map(toc, location.payload_end, size, is_gzip=location.is_gzip)

    def damaged(
        self,
        toc: Toc,
        frames: FrameMap,
        numbers: Sequence[int],
        data: Sequence[bytes | memoryview],
        limits: Limits = DEFAULT_LIMITS,
    ) -> list[int]:
        """The payload frames whose bytes, in `data`, hold other content than the TOC says."""
        return frame_check.damaged(toc, frames, numbers, data, limits)


class ZstdChunked(LayerFormat):
    """Layers by containers/storage, or by stargz: of joined frames, without a tar-split."""

    name = "zstd:chunked"

    def tail(self, size: int, *, is_thrifty: bool = True) -> ByteRange | None:
        return None

    def locate(
        self, layer: Descriptor, tail: bytes = b"", limits: Limits = DEFAULT_LIMITS
    ) -> Location:
        return locate(layer, limits, may_be_joined=True)


class EStargz(LayerFormat):
    """Gzip by stargz. Its TOC's place is in the blob's last bytes."""

    name = "estargz"

    def tail(self, size: int, *, is_thrifty: bool = True) -> ByteRange | None:
        return estargz.footer_span(size) if is_thrifty else estargz.likely_tail(size)

    def locate(
        self, layer: Descriptor, tail: bytes = b"", limits: Limits = DEFAULT_LIMITS
    ) -> Location:
        return estargz.locate(layer, tail, limits)


_ZSTD_CHUNKED, _ESTARGZ = ZstdChunked(), EStargz()


def is_chunked(layer: Descriptor) -> bool:
    """Whether its annotations say that it has frames."""
    return kind_of(layer) != "plain"


def format_of(layer: Descriptor) -> LayerFormat:
    """The format by media type and annotations.

    For one of neither kind, `locate` says why it comes whole.
    """
    return _ESTARGZ if is_estargz(layer) else _ZSTD_CHUNKED


def toc_bytes_of(layer: Descriptor, limits: Limits) -> int | None:
    """Of its TOC, compressed; None where the manifest does not tell, or there is none."""
    try:
        return format_of(layer).locate(layer, limits=limits).toc.span.size
    except (UnsupportedLayerError, FormatError):
        return None
