"""Read a layer's annotations: where its TOC and tar-split lie, and which digests vouch for them."""

from __future__ import annotations

import re

from msgspec import Struct

from zchunked.errors import FormatError, UnsupportedLayerError
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, parse_digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange

_NEW = "io.github.containers.zstd-chunked."  # writers since 2022-11
_OLD = "io.containers.zstd-chunked."
STARGZ_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
_TOC_POSITION = re.compile(r"([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19})", re.ASCII)
_TARSPLIT_POSITION = re.compile(r"([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19})", re.ASCII)
_FIRST_OFFSET = 8  # of the TOC: the header of a skippable frame is before it
_LARGEST = (1 << 63) - 1


class Part(Struct, frozen=True):
    """A compressed part of the blob and the number of bytes it decodes to."""

    span: ByteRange
    decoded_bytes: int


class Location(Struct, frozen=True):
    """Where TOC and tar-split lie.

    `toc_digest` is over the compressed TOC. `tarsplit_digest` is set only where an annotation
    vouches for it (c/storage 1.47 to 1.53); later writers state it inside the TOC. `is_joined`:
    stargz wrote it, so frames go on with padding and headers, and there is no tar-split. `is_gzip`:
    it is eStargz; then `toc_digest` is over the text, and what the TOC decodes to is an upper
    bound.
    """

    toc: Part
    toc_digest: Digest
    tarsplit: Part | None
    tarsplit_digest: Digest | None
    is_joined: bool = False
    is_gzip: bool = False

    @property
    def payload_end(self) -> int:
        """Where file frames end and the tail begins: zstd has a frame header before the TOC."""
        return self.toc.span.start - (0 if self.is_gzip else _FIRST_OFFSET)

    @property
    def parts(self) -> list[ByteRange]:
        """Spans of the TOC and, where there is one, the tar-split."""
        return [self.toc.span, *([self.tarsplit.span] if self.tarsplit else [])]

    @property
    def metadata(self) -> ByteRange:
        """One range over TOC and tar-split where they are neighbours, else the TOC alone."""
        tail = self.tarsplit
        if tail and 0 <= tail.span.start - self.toc.span.end <= 64:
            return ByteRange(self.toc.span.start, tail.span.end)
        return self.toc.span


def written_annotations(toc: Part, toc_digest: Digest, tarsplit: Part) -> dict[str, str]:
    """What a writer says of a layer whose TOC vouches for its tar-split."""
    at = {
        part: f"{part.span.start}:{part.span.size}:{part.decoded_bytes}" for part in (toc, tarsplit)
    }
    return {
        _NEW + "manifest-checksum": toc_digest,
        _NEW + "manifest-position": at[toc] + ":1",
        _NEW + "tarsplit-position": at[tarsplit],
    }


def is_current(layer: Descriptor) -> bool:
    """Whether every partial puller of today accepts it, tar-split digest included."""
    wanted = {_NEW + "manifest-checksum", _NEW + "tarsplit-position"}
    older = _NEW + "tarsplit-checksum"
    return _is_zstd(layer) and wanted <= layer.annotations.keys() and older not in layer.annotations


def other_annotations(layer: Descriptor) -> dict[str, str]:
    """What is said of a layer that does not depend on how it is compressed."""
    ours = (_NEW, _OLD, "containerd.io/snapshot/stargz/", "io.containers.estargz.")
    return {key: value for key, value in layer.annotations.items() if not key.startswith(ours)}


def kind_of(layer: Descriptor) -> str:
    """The receipt's word for a layer: `zstd:chunked`, `estargz` or `plain`."""
    marks = layer.annotations
    if _is_zstd(layer) and any(prefix + "manifest-checksum" in marks for prefix in (_NEW, _OLD)):
        return "zstd:chunked"
    return "estargz" if STARGZ_DIGEST in marks else "plain"


def is_estargz(layer: Descriptor) -> bool:
    """Whether its blob may end in an eStargz footer. Media types are those of OCI and of Docker."""
    return (
        layer.media_type.endswith((".tar+gzip", ".tar.gzip")) and STARGZ_DIGEST in layer.annotations
    )


def locate(
    layer: Descriptor, limits: Limits = DEFAULT_LIMITS, *, may_be_joined: bool = False
) -> Location:
    """UnsupportedLayerError if the layer must come whole, FormatError for impossible numbers.

    `may_be_joined`: zstd:chunked that stargz wrote will do as well.
    """
    marks = layer.annotations
    if not _is_zstd(layer):
        plain = re.split(r"[+.]", layer.media_type)[-1]
        plain = plain if plain.isascii() and plain.isalnum() else f"{layer.media_type!r:.60}"
        raise UnsupportedLayerError(
            "eStargz layers are not read in parts yet"
            if STARGZ_DIGEST in marks
            else f"{plain[:60]} layer without a table of contents"
        )
    prefix = next(
        (
            one
            for one in (_NEW, _OLD)
            if one + "manifest-checksum" in marks or one + "manifest-position" in marks
        ),
        None,
    )
    if prefix is None:
        raise UnsupportedLayerError(
            "eStargz marks on a zstd layer"
            if STARGZ_DIGEST in marks
            else "zstd layer without a table of contents"
        )
    # stargz writes it beside the old names, no writer beside the new ones
    is_joined = STARGZ_DIGEST in marks
    if is_joined and (prefix == _NEW or not may_be_joined):
        raise UnsupportedLayerError("marked as eStargz and as zstd:chunked")
    if prefix + "manifest-checksum" not in marks or prefix + "manifest-position" not in marks:
        raise UnsupportedLayerError(
            "its annotations give the position or the digest of the table of contents, but not both"
        )
    toc, kind = _position(_TOC_POSITION, marks[prefix + "manifest-position"], "manifest-position")
    if kind != 1:
        raise UnsupportedLayerError(f"table of contents of type {kind}, only type 1 is known")
    toc_part = _part(layer, "the table of contents", toc, limits.toc_bytes, limits.toc_bytes)
    toc_digest = parse_digest(
        marks[prefix + "manifest-checksum"], "the TOC digest in the annotations"
    )
    if prefix + "tarsplit-position" not in marks:
        return Location(toc_part, toc_digest, None, None, is_joined)
    numbers, _ = _position(
        _TARSPLIT_POSITION, marks[prefix + "tarsplit-position"], "tarsplit-position"
    )
    tarsplit = _part(
        layer, "the tar-split", numbers, limits.tarsplit_bytes, limits.tarsplit_decoded_bytes
    )
    if tarsplit.span.start < toc_part.span.end and toc_part.span.start < tarsplit.span.end:
        raise FormatError(f"TOC {toc_part.span} and tar-split {tarsplit.span} overlap")
    vouched = marks.get(prefix + "tarsplit-checksum")
    digest = (
        parse_digest(vouched, "the tar-split digest in the annotations")
        if vouched is not None
        else None
    )
    return Location(toc_part, toc_digest, tarsplit, digest, is_joined)


def _is_zstd(layer: Descriptor) -> bool:
    """Tools that recompress a layer may leave its annotations behind; the media type tells."""
    return layer.media_type.endswith("+zstd")


def _position(form: re.Pattern[str], text: str, name: str) -> tuple[tuple[int, int, int], int]:
    found = form.fullmatch(text)
    numbers = [int(number) for number in found.groups()] if found else []
    if not numbers or max(numbers) > _LARGEST:
        raise UnsupportedLayerError(
            f"invalid annotation {name}: {text!r:.80}; expected decimal numbers between colons"
        )
    return (numbers[0], numbers[1], numbers[2]), (numbers[3] if len(numbers) > 3 else 0)


def _part(
    layer: Descriptor, what: str, numbers: tuple[int, int, int], most: int, most_decoded: int
) -> Part:
    offset, length, decoded = numbers
    if offset < _FIRST_OFFSET or length < 1 or offset + length > layer.size:
        raise FormatError(
            f"{what} is said to lie at {offset}+{length} of a blob of {layer.size} bytes"
        )
    if length > most or decoded > most_decoded:
        raise UnsupportedLayerError(
            f"{what} has {length} bytes ({decoded} decoded), above the limits of {most} and "
            f"{most_decoded}"
        )
    return Part(ByteRange(offset, offset + length), decoded)
