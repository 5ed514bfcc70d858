"""A writer of eStargz layers and stargz's zstd:chunked layers: one TOC, two compressions.

Written from the format's description, with no code of ours that reads it.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Collection
from datetime import UTC
from typing import Literal

import zstandard

from tests.helpers.build import toc as indexes
from tests.helpers.build.layers import LAYER, OLD_PREFIX, Layer, Part, sha256
from tests.helpers.build.tar import END_OF_ARCHIVE, Entry, Member, header, padding, parse_tar
from tests.helpers.build.toc import Json

STARGZ_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
TOC_NAME = "stargz.index.json"
Compression = Literal["gzip", "zstd"]

_SKIPPABLE = struct.Struct("<4sI")
_EMPTY_GZIP = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff%b\x01\0\0\xff\xff" + bytes(8)


def footer(toc_at: int, *, legacy: bool = False) -> bytes:
    """An empty gzip member whose extra field says where the TOC's member starts."""
    field = b"%016xSTARGZ" % toc_at
    if not legacy:
        field = b"SG" + struct.pack("<H", len(field)) + field
    return _EMPTY_GZIP % (struct.pack("<H", len(field)) + field)


def stargz_layer(
    tar: bytes,
    *,
    compression: Compression = "gzip",
    chunk_bytes: int = 4 << 20,
    share_below: int = 0,
    parts: Collection[str] = (),
    owners: tuple[str, str] | None = ("root", "root"),
    level: int = 6,
    legacy_footer: bool = False,
    edit_toc: Callable[[Json], Json | None] | None = None,
    edit_toc_json: Callable[[bytes], bytes] | None = None,
    edit_toc_member: Callable[[bytes], bytes] | None = None,
    edit_footer: Callable[[bytes], bytes] | None = None,
    edit_annotations: Callable[[dict[str, str]], dict[str, str] | None] | None = None,
) -> Layer:
    """The members of `tar` (without its end), one frame for each chunk and what follows it.

    `share_below`: a chunk goes on in the frame at hand while that has fewer bytes. `parts`: names
    of entries that a new frame begins with, as where the writer works in parallel. `owners`: user
    and group of all, stated once a part.
    """
    members, _, _ = parse_tar(tar)
    stream = _Frames(compression, level, share_below)
    entries: list[Json] = []
    named = False
    for member in members:
        entry = indexes.entry(member, old_times=False, zone=UTC)
        for key in ("accesstime", "changetime"):
            entry.pop(key, None)
        if member.name.decode() in parts:
            stream.close()
            named = False
        if owners and not named:
            entry |= {"userName": owners[0], "groupName": owners[1]}
            named = True
        stream.open += member.header
        entries += [entry, *_chunks(member, entry, stream, chunk_bytes)]
    if members:
        stream.open += padding(len(members[-1].data))
    stream.close()

    toc: Json = {"version": 1, "entries": entries}
    toc = edit_toc(toc) or toc if edit_toc else toc
    toc_json = json.dumps(toc, indent="\t", ensure_ascii=False).encode("utf-8", "backslashreplace")
    toc_json = edit_toc_json(toc_json) if edit_toc_json else toc_json
    annotations = {STARGZ_DIGEST: sha256(toc_json)}
    if compression == "gzip":
        entry_tar = (
            header(Entry(TOC_NAME, toc_json, mode=0, mtime=0)) + toc_json + padding(len(toc_json))
        )
        member_bytes = stream.compress(entry_tar + END_OF_ARCHIVE)
        member_bytes = edit_toc_member(member_bytes) if edit_toc_member else member_bytes
        toc_at = Part(stream.at, len(member_bytes), len(toc_json))
        end = footer(toc_at.offset, legacy=legacy_footer)
        tail = member_bytes + (edit_footer(end) if edit_footer else end)
        stream.tar += entry_tar + END_OF_ARCHIVE
    else:
        frame = stream.compress(toc_json)
        toc_at = Part(stream.at + _SKIPPABLE.size, len(frame), len(toc_json))
        end = struct.pack("<4Q8s", toc_at.offset, toc_at.length, toc_at.usize, 1, b"GnUlInUx")
        tail = b"".join(
            _SKIPPABLE.pack(b"\x50\x2a\x4d\x18", len(data)) + data for data in (frame, end)
        )
        annotations |= {
            OLD_PREFIX + "manifest-checksum": sha256(frame),
            OLD_PREFIX + "manifest-position": f"{toc_at.offset}:{toc_at.length}:{toc_at.usize}:1",
        }
    annotations = edit_annotations(annotations) or annotations if edit_annotations else annotations
    return Layer(
        blob=b"".join([*stream.frames, tail]),
        tar=bytes(stream.tar),
        media_type=f"{LAYER}+{compression}",
        annotations=annotations,
        toc=toc,
        toc_json=toc_json,
        toc_at=toc_at,
    )


class _Frames:
    """The tar stream as frames; `open` is what the next one has so far."""

    def __init__(self, compression: Compression, level: int, share_below: int) -> None:
        self._compression, self._level, self._share_below = compression, level, share_below
        self.frames: list[bytes] = []
        self.at = 0
        self.open = bytearray()
        self.tar = bytearray()

    def compress(self, data: bytes) -> bytes:
        if self._compression == "zstd":
            return zstandard.ZstdCompressor(level=self._level, write_checksum=True).compress(data)
        return gzip.compress(data, self._level, mtime=0)

    def close(self) -> None:
        if self.open:
            self.tar += self.open
            self.frames.append(self.compress(bytes(self.open)))
            self.at += len(self.frames[-1])
            self.open.clear()

    def begin_chunk(self) -> tuple[int, int]:
        """Offset and inner offset of the chunk that comes next."""
        if self.open and len(zlib.compress(bytes(self.open))) < self._share_below:
            return self.at, len(self.open)
        self.close()
        return self.at, 0


def _chunks(member: Member, main: Json, stream: _Frames, chunk_bytes: int) -> list[Json]:
    """The further entries of one member, whose payload goes to the stream; its own is filled in."""
    if member.type != "reg":
        return []
    main["digest"] = sha256(member.data)
    found = [main]
    for at in range(0, len(member.data), chunk_bytes):
        data = member.data[at : at + chunk_bytes]
        offset, inner = stream.begin_chunk()
        if at:
            found.append({"type": "chunk", "name": main["name"]})
        about = {"offset": offset, "innerOffset": inner, "chunkOffset": at}
        found[-1] |= {key: value for key, value in about.items() if value} | {
            "chunkDigest": sha256(data)
        }
        if at + chunk_bytes < len(member.data):
            found[-1]["chunkSize"] = chunk_bytes
        stream.open += data
    return found[1:]
