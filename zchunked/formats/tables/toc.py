"""A TOC in columns, and the builder that fills them and checks every entry (zstd:chunked TOC).

A layer may have a hundred thousand entries, so the result is columns, not objects, and entries are
decoded in batches.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import compress
from struct import iter_unpack
from typing import NamedTuple

from msgspec import UNSET

from zchunked.errors import FormatError, LimitError, UnsupportedLayerError
from zchunked.formats.budget import ImageBudget, LayerBudget
from zchunked.formats.tables.toc_checks import (
    check_names,
    check_overlaps,
    check_sizes,
    mark_holes,
    payload_bytes,
)
from zchunked.formats.tables.toc_json import Entry
from zchunked.limits import Limits
from zchunked.oci.digest import EMPTY, RAW_SIZE, Digest, parse_digests

_KINDS = frozenset({"reg", "dir", "symlink", "hardlink", "char", "block", "fifo"})


@dataclass(frozen=True, slots=True, eq=False)
class Toc:
    """A layer's files and chunks in columns. `chunk` entries are folded into their file.

    Entry i has name `names[i]`, a payload of `sizes[i]` bytes (0 for all but regular files) and the
    chunks [first[i], first[i+1]). Chunk c lies at [starts[c], ends[c]) of the compressed blob and
    decodes to `chunk_sizes[c]` bytes of the raw digest `digests[c]`; where `holes[c]` is 1 these
    are zeros and need not be fetched. `file_digests` has the raw digests of files of several
    chunks, by entry. `fingerprints`: of what lies before each payload (`fingerprints.py`).
    `inner_offsets` is None, unless stargz wrote it: then a chunk lies that far into what its range
    decodes to, and more may follow it there.
    """

    names: list[str]
    sizes: array[int]
    first: array[int]
    starts: array[int]
    ends: array[int]
    chunk_sizes: array[int]
    digests: list[bytes]
    holes: bytearray
    file_digests: dict[int, bytes]
    tarsplit_digest: Digest | None
    fingerprints: bytes = b""
    inner_offsets: array[int] | None = None


class ChunkColumns(NamedTuple):
    """Chunks of a TOC, as columns of the same names in `Toc`."""

    starts: array[int]
    ends: array[int]
    chunk_sizes: array[int]
    digests: list[bytes]
    holes: bytearray


class TocBuilder:
    """Takes the entries in order and fills the columns; a file is open until its last chunk."""

    def __init__(self, payload_end: int, limits: Limits, budget: LayerBudget | None = None) -> None:
        self._payload_end = payload_end
        self._budget = budget or ImageBudget(limits).layer("")
        self._limits = limits
        self._names: list[str] = []
        self._sizes = array("q")
        self._first = array("q", [0])
        self._starts = array("q")
        self._ends = array("q")
        self._chunk_sizes = array("q")
        self._digest_texts: list[str] = []  # of the batch at hand
        self._packed = bytearray()  # thirty-two bytes instead of the text of a digest
        self._holes = bytearray()
        self._file_digests: dict[int, str] = {}
        self._total = 0
        self._open: list[Entry] = []  # the regular file in progress and its chunks

    def take(self, batch: list[Entry]) -> None:
        """The next entries, in order."""
        before = len(self._sizes)  # a file that was left open counts now
        kinds = [entry.type for entry in batch]
        if self._open and kinds[0] != "chunk":
            self._close()
        payload_end, texts, opened = self._payload_end, self._digest_texts, self._open
        # What follows the last one is not known yet: a file, or its chunk, stays open.
        for entry, kind, after in zip(batch, kinds, [*kinds[1:], "chunk"], strict=True):
            if kind == "chunk":
                self._chunk(entry)
                if after != "chunk":
                    self._close()
                continue
            name = entry.name
            if name is UNSET:
                raise FormatError("an entry of the TOC has no name")
            self._names.append(name)
            if kind != "reg":
                if kind not in _KINDS:
                    raise UnsupportedLayerError(
                        f"its table of contents has entries of type {kind!r:.40}"
                    )
                self._sizes.append(0)  # a link's header may state a size, but no payload follows it
                self._first.append(len(self._starts))
                continue
            size, start, end, digest = entry.size, entry.offset, entry.end_offset, entry.digest
            if (
                after != "chunk"
                and size and start and end and digest
                and start < end <= payload_end
                and not (entry.chunk_digest or entry.chunk_size)
                and not (entry.chunk_offset or entry.chunk_type)
            ):  # the way of nearly all files  # fmt: skip
                self._starts.append(start)
                self._ends.append(end)
                self._chunk_sizes.append(size)
                texts.append(digest)
                self._sizes.append(size)
                self._first.append(len(self._starts))
                continue
            opened.append(entry)
            if after != "chunk":
                self._close()
        self._take_stock(before)

    def _take_stock(self, before: int) -> None:
        """What is done for many entries at once. `before`: how many there were."""
        self._total += sum(self._sizes[before:])
        if self._total > self._limits.tar_bytes:
            raise LimitError(
                f"the layer's files have {self._total} bytes or more, the limit is "
                f"{self._limits.tar_bytes}"
            )
        self._packed += parse_digests(self._digest_texts, "a chunk's digest in the TOC")
        self._digest_texts.clear()
        self._fill_holes()

    def chunks_from(self, first: int) -> ChunkColumns:
        """Chunks that are complete so far, from that number on."""
        end = len(self._packed) // RAW_SIZE
        packed = memoryview(self._packed)[first * RAW_SIZE : end * RAW_SIZE]
        digests = [digest for (digest,) in iter_unpack(f"{RAW_SIZE}s", packed)]
        its = slice(first, end)
        return ChunkColumns(
            self._starts[its], self._ends[its], self._chunk_sizes[its], digests, self._holes[its]
        )

    def _fill_holes(self) -> None:
        """Chunks that are no holes are recorded late."""
        self._holes.extend(bytes(len(self._starts) - len(self._holes)))

    def _chunk(self, entry: Entry) -> None:
        if not self._open:
            raise FormatError(f"chunk of {entry.name!r:.80} in the TOC follows no regular file")
        if entry.name != self._open[0].name:
            raise FormatError(
                f"chunk of {entry.name!r:.80} in the TOC follows file {self._open[0].name!r:.80}"
            )
        self._open.append(entry)

    def _close(self) -> None:
        if not self._open:
            return
        file, name = self._open[0], self._names[-1]
        size = file.size or 0
        if size:
            self._payload(file, name, size)
        else:
            self._empty(file, name)
        self._sizes.append(size)
        self._first.append(len(self._starts))
        self._open.clear()

    def _empty(self, file: Entry, name: str) -> None:
        if len(self._open) > 1 or (file.offset or 0) < (file.end_offset or 0):
            raise FormatError(f"empty file {name!r:.80} has a payload in the TOC")
        if (file.digest or EMPTY) != EMPTY:
            raise FormatError(f"empty file {name!r:.80} has the digest {file.digest!r:.80}")

    def _payload(self, file: Entry, name: str, size: int) -> None:
        group = self._open
        starts, ends = self._spans(group, name)
        if not file.digest:
            raise FormatError(f"file {name!r:.80} has no digest in the TOC")
        self._chunks(group, name, size)
        self._starts.extend(starts)
        self._ends.extend(ends)
        if len(group) == 1:
            if (file.chunk_digest or file.digest) != file.digest:
                raise FormatError(f"file {name!r:.80} is one chunk and has two digests")
            self._digest_texts.append(file.digest)
        else:
            self._digest_texts.extend([entry.chunk_digest or "" for entry in group])
            self._file_digests[len(self._names) - 1] = file.digest

    def _spans(self, group: list[Entry], name: str) -> tuple[list[int], list[int]]:
        """Each chunk starts where the one before ends; the last ends where its file does."""
        end = group[0].end_offset
        if end is UNSET:
            raise UnsupportedLayerError("its table of contents does not say where files end")
        starts = [entry.offset or 0 for entry in group]
        ends = [*starts[1:], end]
        if starts[0] <= 0 or end > self._payload_end or not all(map(int.__lt__, starts, ends)):
            raise FormatError(
                f"file {name!r:.80} is said to lie at {starts[0]} to {end} of "
                f"{self._payload_end} bytes"
            )
        return starts, ends

    def _chunks(self, group: list[Entry], name: str, size: int) -> None:
        done = 0
        self._fill_holes()
        for entry in group:
            here = entry.chunk_size or size - done
            if (entry.chunk_offset or 0) != done or here <= 0:
                raise FormatError(f"the chunks of {name!r:.80} do not follow each other")
            done += here
            self._chunk_sizes.append(here)
            if entry.chunk_type and entry.chunk_type != "zeros":
                raise UnsupportedLayerError(f"chunks of type {entry.chunk_type!r:.40}")
            self._holes.append(entry.chunk_type == "zeros")
        if done != size:
            raise FormatError(f"the chunks of {name!r:.80} have {done} bytes, the file has {size}")

    def finish(self, tarsplit_digest: Digest | None, fingerprints: bytes) -> Toc:
        before = len(self._sizes)
        self._close()
        self._take_stock(before)
        check_names(self._names, self._limits.name_bytes)
        every = [digest for (digest,) in iter_unpack(f"{RAW_SIZE}s", self._packed)]
        same: dict[bytes, bytes] = {}  # a quarter of a layer may be there twice
        digests = list(map(same.setdefault, every, every))
        del every, same
        check_sizes(digests, self._chunk_sizes)
        self._check_overlaps(digests)
        self._budget.take_files(self._total, payload_bytes(self._starts, self._ends))
        if any(self._holes):
            self._budget.take_holes(sum(compress(self._chunk_sizes, self._holes)))
            mark_holes(self._holes, self._chunk_sizes, digests)
        files = parse_digests(list(self._file_digests.values()), "a file's digest in the TOC")
        whole = {
            entry: files[at * RAW_SIZE : (at + 1) * RAW_SIZE]
            for at, entry in enumerate(self._file_digests)
        }
        return Toc(
            self._names, self._sizes, self._first, self._starts, self._ends,
            self._chunk_sizes, digests, self._holes, whole, tarsplit_digest, fingerprints,
        )  # fmt: skip

    def _check_overlaps(self, digests: list[bytes]) -> None:
        """Refuse chunks that overlap; a format without ends computes them first."""
        check_overlaps(self._starts, self._ends, digests)
