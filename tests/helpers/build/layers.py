"""A real writer of zstd:chunked layers, and of the ordinary kinds.

Hooks named `edit_…` see each part before anything that vouches for it is computed: a lying layer is
consistently signed.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from typing import Literal

import zstandard

from tests.helpers.build import toc as indexes
from tests.helpers.build.cut import Cut, pieces, rolling
from tests.helpers.build.tar import Member, parse_tar
from tests.helpers.build.toc import Json

Generation = Literal[1, 2, 3, 4]
Footer = Literal["F40", "F56", "F64"]

PREFIX = "io.github.containers.zstd-chunked."
OLD_PREFIX = "io.containers.zstd-chunked."
LAYER = "application/vnd.oci.image.layer.v1.tar"

EMPTY_FRAME = bytes.fromhex("28b52ffd046801000099e9d851")
_SKIPPABLE = struct.Struct("<4sI")
_FOOTERS: dict[Footer, tuple[bytes, int]] = {
    "F40": (b"GnUlInUx", 0),
    "F56": (b"GnUlInUx", 16),
    "F64": (b"GNUlInUx", 0),
}


def sha256(data: bytes) -> str:
    """The digest as OCI writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a piece of a file really lies, whatever an edited TOC may say."""

    file: str
    """Bytes that are not UTF-8 are surrogate escapes."""
    at: int
    usize: int
    digest: str
    start: int
    end: int
    zeros: bool


@dataclass(frozen=True, slots=True)
class Part:
    """An index inside a blob: the span of its inner frame, and its length uncompressed."""

    offset: int
    length: int
    usize: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True)
class Layer:
    """One layer blob with everything a test may want to know about it."""

    blob: bytes
    tar: bytes
    media_type: str
    annotations: dict[str, str] = field(default_factory=dict)
    toc: Json = field(default_factory=dict)
    toc_json: bytes = b""
    toc_at: Part | None = None
    tar_split_json: bytes = b""
    tar_split_at: Part | None = None
    chunks: list[Chunk] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """Spans of the header frames: all of the tar stream that is not payload."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha256(self.blob))
        object.__setattr__(self, "diff_id", sha256(self.tar))

    digest: str = field(init=False, default="")
    diff_id: str = field(init=False, default="")

    @property
    def size(self) -> int:
        return len(self.blob)

    def descriptor(self) -> Json:
        """As an image manifest lists it."""
        found: Json = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return found | ({"annotations": dict(self.annotations)} if self.annotations else {})


def tar_layer(tar: bytes, *, annotations: dict[str, str] | None = None) -> Layer:
    return Layer(tar, tar, LAYER, annotations or {})


def gzip_layer(tar: bytes, *, level: int = 6, annotations: dict[str, str] | None = None) -> Layer:
    return Layer(gzip.compress(tar, level, mtime=0), tar, LAYER + "+gzip", annotations or {})


def zstd_layer(tar: bytes, *, level: int = 3, annotations: dict[str, str] | None = None) -> Layer:
    return Layer(zstandard.compress(tar, level), tar, LAYER + "+zstd", annotations or {})


def chunked_layer(
    tar: bytes,
    *,
    generation: Generation = 4,
    cut: Cut = rolling,
    holes: bool = True,
    level: int = 3,
    zone: tzinfo = UTC,
    footer: Footer | None = None,
    edit_payload: Callable[[Chunk, bytes], bytes] | None = None,
    edit_tar_split: Callable[[list[Json]], list[Json] | None] | None = None,
    edit_tar_split_json: Callable[[bytes], bytes] | None = None,
    edit_tar_split_frame: Callable[[bytes], bytes] | None = None,
    edit_toc: Callable[[Json], Json | None] | None = None,
    edit_toc_json: Callable[[bytes], bytes] | None = None,
    edit_toc_frame: Callable[[bytes], bytes] | None = None,
    edit_annotations: Callable[[dict[str, str]], dict[str, str] | None] | None = None,
) -> Layer:
    """A layer as containers/storage writes it, down to its empty frames; only the encoder differs.

    Generations: 1 old annotation names and no tar-split, 2 new names and no tar-split, 3 a
    tar-split that only an annotation vouches for, 4 one that the TOC vouches for. Hooks change what
    they are given, or return another. `edit_payload` replaces the frame of a chunk (its `end` is
    that of the original frame). `zone` is the builder's.
    """
    members, end, rest = parse_tar(tar)
    compress = zstandard.ZstdCompressor(
        level=level, write_checksum=True, write_content_size=False
    ).compress
    stream = _Stream(compress, edit_payload)
    entries: list[Json] = []
    for member in members:
        stream.pending.append(member.header)
        entries += _entries(
            member, stream, indexes.entry(member, old_times=generation < 4, zone=zone), cut, holes
        )
    stream.pending += end, rest
    stream.close_headers(at_end=True)

    toc: Json = {"version": 1, "entries": entries or None}
    ts_frame = ts_json = b""
    if generation >= 3:
        lines = indexes.tar_split(members, end, rest, len(tar) - len(rest))
        lines = edit_tar_split(lines) or lines if edit_tar_split else lines
        ts_json = _edited(
            edit_tar_split_json, b"".join(indexes.dumps(line) + b"\n" for line in lines)
        )
        ts_frame = _edited(edit_tar_split_frame, compress(ts_json))
        if generation == 4:
            toc["tarSplitDigest"] = sha256(ts_frame)
    toc = edit_toc(toc) or toc if edit_toc else toc
    toc_json = _edited(edit_toc_json, indexes.dumps(toc))
    toc_frame = _edited(edit_toc_frame, compress(toc_json))

    toc_at = Part(stream.at + _SKIPPABLE.size, len(toc_frame), len(toc_json))
    ts_at = (
        Part(toc_at.end + _SKIPPABLE.size, len(ts_frame), len(ts_json)) if generation >= 3 else None
    )
    prefix = PREFIX if generation > 1 else OLD_PREFIX
    annotations = {
        prefix + "manifest-checksum": sha256(toc_frame),
        prefix + "manifest-position": f"{toc_at.offset}:{toc_at.length}:{toc_at.usize}:1",
    }
    parts = [*stream.parts, _skippable(toc_frame)]
    if ts_at:
        annotations[prefix + "tarsplit-position"] = f"{ts_at.offset}:{ts_at.length}:{ts_at.usize}"
        if generation == 3:
            annotations[prefix + "tarsplit-checksum"] = sha256(ts_frame)
        parts.append(_skippable(ts_frame))
    parts.append(_footer(footer or ("F64" if ts_at else "F40"), toc_at, ts_at))
    annotations = edit_annotations(annotations) or annotations if edit_annotations else annotations
    return Layer(
        blob=b"".join(parts),
        tar=tar,
        media_type=LAYER + "+zstd",
        annotations=annotations,
        toc=toc,
        toc_json=toc_json,
        toc_at=toc_at,
        tar_split_json=ts_json,
        tar_split_at=ts_at,
        chunks=stream.chunks,
        gaps=stream.gaps,
    )


class _Stream:
    """The tar stream as frames: payloads, and header frames with what lies between."""

    def __init__(
        self, compress: Callable[[bytes], bytes], edit: Callable[[Chunk, bytes], bytes] | None
    ) -> None:
        self.compress = compress
        self.edit = edit
        self.parts: list[bytes] = []
        self.at = 0
        self.pending: list[bytes] = []
        self.chunks: list[Chunk] = []
        self.gaps: list[tuple[int, int]] = []

    def put(self, frame: bytes) -> None:
        self.parts.append(frame)
        self.at += len(frame)

    def close_headers(self, *, at_end: bool = False) -> None:
        """End a header frame: one before each payload, and one at the end even if empty."""
        data = b"".join(self.pending)
        self.pending.clear()
        start = self.at
        self.put(self.compress(data) if data or not at_end else EMPTY_FRAME)
        self.gaps.append((start, self.at))

    def put_chunk(self, file: str, at: int, data: bytes, *, zeros: bool) -> Chunk:
        frame = self.compress(data)
        chunk = Chunk(file, at, len(data), sha256(data), self.at, self.at + len(frame), zeros)
        if self.edit:
            frame = self.edit(chunk, frame)
            chunk = replace(chunk, end=self.at + len(frame))
        self.put(frame)
        self.chunks.append(chunk)
        return chunk

    def close_payload(self) -> int:
        """Where the payload ends; its last chunk reaches to there, over an empty frame too."""
        self.chunks[-1] = replace(self.chunks[-1], end=self.at)
        return self.at


def _entries(member: Member, stream: _Stream, main: Json, cut: Cut, holes: bool) -> list[Json]:
    """The TOC entries of one member, one for each chunk. Writes the payload to the stream."""
    data = member.data
    if not data:
        return [main]
    stream.close_headers()
    cuts = pieces(data, cut, holes=holes)
    whole = sum(start < end for start, end, _ in cuts) == 1
    file = member.name.decode("utf-8", "surrogateescape")
    main |= {"digest": sha256(data), "offset": stream.at, "endOffset": 0}
    found = [main]
    for start, end, zeros in cuts:
        if start == end:
            stream.put(EMPTY_FRAME)
            continue
        chunk = stream.put_chunk(file, start, data[start:end], zeros=zeros and not whole)
        if whole:
            continue
        if start:
            found.append({"type": "chunk", "name": main["name"], "offset": chunk.start})
        about = {"chunkSize": chunk.usize, "chunkOffset": start, "chunkDigest": chunk.digest}
        found[-1] |= {key: value for key, value in about.items() if value}
        if zeros:
            found[-1]["chunkType"] = "zeros"
    main["endOffset"] = stream.close_payload()
    return found


def _edited(edit: Callable[[bytes], bytes] | None, data: bytes) -> bytes:
    return edit(data) if edit else data


def _skippable(payload: bytes) -> bytes:
    return _SKIPPABLE.pack(b"\x50\x2a\x4d\x18", len(payload)) + payload


def _footer(form: Footer, toc: Part, tar_split: Part | None) -> bytes:
    numbers = [toc.offset, toc.length, toc.usize, 1]
    if form == "F64":
        numbers += [tar_split.offset, tar_split.length, tar_split.usize] if tar_split else [0, 0, 0]
    magic, zeros = _FOOTERS[form]
    return _skippable(struct.pack(f"<{len(numbers)}Q", *numbers) + magic + bytes(zeros))
