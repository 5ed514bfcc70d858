"""Find and decode the TOC of an eStargz layer: its footer, and the gzip member before that.

An eStargz blob is a gzip file of many members. The last one is empty: its header's extra field says
where the TOC's member starts. That holds a tar entry, `stargz.index.json`. The digest in the
layer's annotations is over the JSON, uncompressed.

Locating takes two reads: the end of the blob (`footer_span`, or `likely_tail` to have the TOC too
with some luck), then what `locate` says.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from zchunked.errors import FormatError, UnsupportedLayerError
from zchunked.formats.annotations import STARGZ_DIGEST, Location, Part
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import parse_digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange

TOC_NAME = b"stargz.index.json"
FOOTER_BYTES = 51
_LEGACY_FOOTER_BYTES = 47  # stargz of 2019 (CRFS): the extra field without a subfield's header
# Gzip header with an extra field, that field, a last block that is stored and empty, the checksum
# of nothing.
_FOOTER = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x1a\0SG\x16\0([0-9a-f]{16})STARGZ\x01\0\0\xff\xff\0{8}", re.DOTALL
)
_LEGACY_FOOTER = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x16\0([0-9a-f]{16})STARGZ\x01\0\0\xff\xff\0{8}", re.DOTALL
)
_STEP = 256 << 10
_ZLIB_GZIP = 31
_TAR_BLOCK = 512
_OCTAL = re.compile(rb" *([0-7]{1,11})[ \0]*")


def footer_span(size: int) -> ByteRange:
    """What `locate` needs of a blob of `size` bytes. UnsupportedLayerError when it is too small."""
    return _end_of(size, FOOTER_BYTES)


def likely_tail(size: int) -> ByteRange:
    """The end of the blob with the footer and probably the TOC: a sixteenth, 16 KiB to 1 MiB.

    The TOC has 2 % (large files) to 13 % (small ones) of a blob. What is fetched for nothing are
    frames just before it. Raises as `footer_span`.
    """
    return _end_of(size, min(max(size >> 4, 16 << 10), 1 << 20))


def _end_of(size: int, wanted: int) -> ByteRange:
    if size < FOOTER_BYTES:
        raise UnsupportedLayerError(f"a blob of {size} bytes has no eStargz footer")
    return ByteRange(max(size - wanted, 0), size)


def locate(layer: Descriptor, tail: bytes, limits: Limits = DEFAULT_LIMITS) -> Location:
    """Where the TOC lies, by the end of the blob: `tail` is its last 51 bytes, or more.

    Raises UnsupportedLayerError when there is no footer or the TOC is above the limits, FormatError
    when the footer or the annotation cannot be true.
    """
    digest = parse_digest(
        layer.annotations.get(STARGZ_DIGEST, ""), "the TOC digest in the annotations"
    )
    for form, length in ((_FOOTER, FOOTER_BYTES), (_LEGACY_FOOTER, _LEGACY_FOOTER_BYTES)):
        if found := form.fullmatch(tail[-length:]):
            break
    else:
        raise UnsupportedLayerError("its last bytes are not an eStargz footer")
    start, end = int(found[1], 16), layer.size - length
    if not start < end:
        raise FormatError(
            f"the TOC is said to lie at {start} of a blob of {layer.size} bytes, before the footer"
        )
    if end - start > limits.toc_bytes:
        raise UnsupportedLayerError(
            f"the table of contents has {end - start} bytes, above the limit of {limits.toc_bytes}"
        )
    toc = Part(ByteRange(start, end), limits.toc_bytes)
    return Location(toc, digest, None, None, is_joined=True, is_gzip=True)


class TocMember:
    """Push decoder of the TOC's gzip member, cut anywhere, to the JSON in its tar entry.

    Whatever the member decodes to, output has steps of 256 KiB, and ends with the JSON.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._member = zlib.decompressobj(_ZLIB_GZIP)
        self._header = b""
        self._left = -1  # of the JSON; -1 until the header arrived

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The next text.

        Raises FormatError when the bytes are no such member, or the TOC is too long.
        """
        data = piece
        while self._left:
            try:
                out = self._member.decompress(data, _STEP)
            except zlib.error as error:
                raise FormatError(f"broken gzip member of the TOC: {error}") from error
            data = self._member.unconsumed_tail
            # more of it may be ready, though all of the input was taken
            is_full = len(out) == _STEP
            if self._left < 0:
                out = self._after_header(out)
            if text := out[: max(self._left, 0)]:
                self._left -= len(text)
                yield text
            if self._member.eof:
                self.finish()
            elif not (data or is_full):
                break

    def _after_header(self, out: bytes) -> bytes:
        """What follows the tar header, once that arrived."""
        self._header += out
        if len(self._header) < _TAR_BLOCK:
            return b""
        block, rest = self._header[:_TAR_BLOCK], self._header[_TAR_BLOCK:]
        self._header = b""
        size = _OCTAL.fullmatch(block[124:136])
        if (
            block[:100].rstrip(b"\0") != TOC_NAME
            or block[156:157] not in (b"0", b"\0")
            or size is None
        ):
            raise FormatError(f"the eStargz TOC's tar entry is not a file {TOC_NAME.decode()}")
        self._left = int(size[1], 8)
        if self._left > self._limits.toc_bytes:
            raise UnsupportedLayerError(
                f"the table of contents has {self._left} bytes, above the limit of "
                f"{self._limits.toc_bytes}"
            )
        return rest

    def finish(self) -> None:
        """Raise FormatError unless all of the JSON came out. What follows it is not looked at."""
        if self._left:
            raise FormatError("the gzip member of the TOC ends before the TOC does")
