"""Frames of a blob being written: gathered in batches, compressed elsewhere, put in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from zchunked.formats.frames import zstd
from zchunked.formats.tars.tar_reader import Member
from zchunked.formats.writing.chunker import cut_many
from zchunked.formats.writing.toc_writer import Chunk, Frames, TocWriter

BATCH_BYTES, _BATCH_FRAMES = 1 << 20, 512  # of one piece of work
LONG_BYTES = 4 << 20  # a longer frame is compressed as it arrives, and never held


@dataclass(slots=True)
class Whole:
    """A step: the next frames have the contents of this file, which arrived in one piece."""

    member: Member


@dataclass(slots=True)
class Long:
    """A step: frames of this file follow, up to a `FileEnd`."""

    member: Member


@dataclass(slots=True)
class Frame:
    """A step: a frame ends. Its content is the next of the batch, unless it came before, as `Raw`.

    `digest`: of the chunk that it is; a header frame has none.
    """

    size: int
    is_raw: bool
    is_hole: bool
    digest: str


HEADERS = Frame(0, is_raw=False, is_hole=False, digest="")


@dataclass(slots=True)
class Raw:
    """A step: a part of a long frame, compressed already."""

    data: bytes


@dataclass(slots=True)
class FileEnd:
    """A step: the payload of the last file ends here."""

    digest: str


Step = Member | Whole | Long | Frame | Raw | FileEnd
"""A member stands for itself where it has no payload."""


@dataclass(slots=True)
class _Cut:
    """A whole file's digest, and the sizes, kinds and digests of its chunks."""

    digest: str
    chunks: list[tuple[int, bool, str]]


@dataclass(slots=True)
class Batch:
    """A piece of work, and what is to be made of its result, in order."""

    contents: list[bytes] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    size: int = 0
    # which of the contents are whole files, not yet cut
    _files: list[int] = field(default_factory=list)
    cuts: list[_Cut] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return self.size >= BATCH_BYTES or len(self.contents) >= _BATCH_FRAMES

    def headers(self, content: bytes) -> None:
        self.steps.append(HEADERS)
        self.contents.append(content)
        self.size += len(content)

    def file(self, member: Member, content: bytes) -> None:
        self.steps.append(Whole(member))
        self._files.append(len(self.contents))
        self.contents.append(content)
        self.size += len(content)

    def cut(self) -> list[bytes]:
        """What is to be compressed: the contents, files as their chunks.

        Digests are made here and not where frames are: for each of those thousands a worker would
        have to wait until it gets the interpreter's lock again.
        """
        files, contents = self._files, self.contents
        several = cut_many([contents[number] for number in files])
        ready: list[bytes] = []
        done = 0
        for number, at in enumerate(files):
            ready += contents[done:at]
            done = at + 1
            content = contents[at]
            digest = digest_of(content)
            if number not in several:
                self.cuts.append(_Cut(digest, [(len(content), False, digest)]))
                ready.append(content)
                continue
            cut, start = _Cut(digest, []), 0
            for end, is_hole in several[number]:
                chunk = content[start:end]
                cut.chunks.append((end - start, is_hole, digest_of(chunk)))
                ready.append(chunk)
                start = end
            self.cuts.append(cut)
        ready += contents[done:]
        self.contents = []
        return ready


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class OpenFrame:
    """Gathers a frame's content, and compresses it as it arrives once it is long."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._parts: list[bytes] = []
        self._encoder: zstd.FrameEncoder | None = None
        self._hasher = hashlib.sha256()
        self.size = 0

    @property
    def is_long(self) -> bool:
        return self._encoder is not None

    def add(self, data: bytes) -> bytes:
        """Compressed bytes, of a long frame."""
        self.size += len(data)
        if self._encoder is None:
            self._parts.append(data)
            if self.size <= LONG_BYTES:
                return b""
            self._encoder = zstd.FrameEncoder(self._level)
            data = self.content()
        self._hasher.update(data)
        return self._encoder.feed(data)

    def content(self) -> bytes:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        return data

    def finish(self) -> tuple[bytes, str]:
        """The rest of a long frame, and the digest of its content."""
        assert self._encoder is not None
        return self._encoder.finish(), f"sha256:{self._hasher.hexdigest()}"


class Layout:
    """Puts frames behind each other and writes their places into the TOC."""

    def __init__(self, toc: TocWriter) -> None:
        self._toc = toc
        self._member: Member | None = None  # a long file that is under way
        self._chunks: list[Chunk] = []
        self._start: int | None = None  # of a long frame that is under way
        self.at = 0

    def put(self, data: bytes) -> bytes:
        self.at += len(data)
        return data

    def take(self, batch: Batch, frames: Frames) -> bytes:
        """The bytes of its steps."""
        out: list[bytes] = []
        ready, cuts = iter(frames), iter(batch.cuts)
        for step in batch.steps:
            if isinstance(step, Member):
                self._toc.member(step, (), 0, "")
            elif isinstance(step, Whole):
                self._whole(step.member, next(cuts), ready, out)
            elif step is HEADERS:
                out.append(self.put(next(ready)))
            elif isinstance(step, Frame):
                start = self._start if step.is_raw and self._start is not None else self.at
                if not step.is_raw:
                    out.append(self.put(next(ready)))
                self._start = None
                if step.digest:
                    self._chunks.append(Chunk(start, step.size, step.is_hole, step.digest))
            else:
                self._long(step, out)
        return b"".join(out)

    def _whole(self, member: Member, cut: _Cut, ready: Iterator[bytes], out: list[bytes]) -> None:
        chunks = []
        for size, is_hole, digest in cut.chunks:
            chunks.append(Chunk(self.at, size, is_hole, digest))
            out.append(self.put(next(ready)))
        self._toc.member(member, chunks, self.at, cut.digest)

    def _long(self, step: Long | Raw | FileEnd, out: list[bytes]) -> None:
        if isinstance(step, Long):
            self._member = step.member
        elif isinstance(step, Raw):
            self._start = self.at if self._start is None else self._start
            out.append(self.put(step.data))
        else:
            assert self._member is not None
            self._toc.member(self._member, self._chunks, self.at, step.digest)
            self._member, self._chunks = None, []
