"""Read a layer's TOC as its bytes arrive: decoded, hashed and parsed at once."""

from __future__ import annotations

import hashlib

from msgspec import structs

from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError, ZPullError
from zchunked.formats.annotations import Location
from zchunked.formats.budget import ImageBudget
from zchunked.formats.estargz import TocMember
from zchunked.formats.frames.zstd import FrameDecoder
from zchunked.formats.tables.stargz_toc import StargzTocBuilder
from zchunked.formats.tables.toc import ChunkColumns, Toc
from zchunked.formats.tables.toc_parser import TocParser
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import short
from zchunked.oci.documents import Descriptor


class TocReader:
    """Reads a layer's TOC as its bytes arrive. The result may be used only once `finish` returned.

    Its digest is over the compressed bytes (zstd:chunked) or over the text (eStargz).
    """

    def __init__(
        self,
        layer: Descriptor,
        location: Location,
        limits: Limits = DEFAULT_LIMITS,
        budget: ImageBudget | None = None,
    ) -> None:
        """`budget`: of the image; None: the layer is all of it."""
        self._layer, self._location = layer, location
        self._hasher = hashlib.sha256()
        # of a single frame it may be all of the text
        window = max(limits.window_bytes, limits.toc_bytes)
        self._decoder: FrameDecoder | TocMember = (
            TocMember(limits)
            if location.is_gzip
            else FrameDecoder(structs.replace(limits, window_bytes=window))
        )
        share = (budget or ImageBudget(limits)).layer(layer.digest)
        if not location.is_gzip:
            share.take_text(location.toc.decoded_bytes)
        builder = (
            StargzTocBuilder(location.payload_end, limits, share) if location.is_joined else None
        )
        self._parser = TocParser(
            location.toc.span.start,
            limits,
            builder=builder,
            budget=share,
            is_text_taken=not location.is_gzip,
        )
        self._left = location.toc.decoded_bytes
        self._broken: ZPullError | None = None  # what cannot be decoded
        self._refused: ZPullError | None = None  # what was decoded and cannot be a TOC

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the blob.

        `finish` raises what is wrong with them: they may be damaged.
        """
        is_gzip = self._location.is_gzip
        if not is_gzip:
            self._hasher.update(piece)
        if self._broken is not None:
            return
        try:
            for text in self._decoder.feed(piece):
                if is_gzip:
                    self._hasher.update(text)
                self._left -= len(text)
                if self._left < 0:
                    raise FormatError(
                        f"the TOC decodes to more than {self._location.toc.decoded_bytes} bytes"
                    )
                self._parse(text)
        except (FormatError, UnsupportedLayerError) as error:
            self._broken = error

    def _parse(self, text: bytes) -> None:
        if self._refused is None:
            try:
                self._parser.feed(text)
            except (FormatError, UnsupportedLayerError) as error:
                self._refused = error

    def chunks_from(self, first: int) -> ChunkColumns:
        """Chunks that the bytes so far list, from that number on; unverified as these are."""
        return self._parser.chunks_from(first)

    def fingerprints_from(self, first: int) -> bytes:
        """Of what lies before payloads that the bytes so far list; unverified as these are."""
        return self._parser.fingerprints_from(first)

    def finish(self) -> Toc:
        """Raises IntegrityError when the digest is wrong, otherwise as `TocParser` does."""
        want, got = self._location.toc_digest, self._hasher.hexdigest()
        # then an eStargz TOC was not hashed to its end
        if isinstance(self._broken, UnsupportedLayerError):
            raise self._broken
        if want != f"sha256:{got}":
            raise IntegrityError(
                f"TOC of layer {short(self._layer.digest)}: expected {want}, got sha256:{got}"
                + (f" ({self._broken})" if self._broken else "")
            )
        if error := self._refused or self._broken:
            raise error
        self._decoder.finish()
        if self._left and not self._location.is_gzip:
            size = self._location.toc.decoded_bytes
            raise FormatError(f"the TOC decodes to {size - self._left} bytes instead of {size}")
        return self._parser.finish()
