"""Rebuild a layer's tar byte for byte, from tar-split and stored chunks; its diff ID decides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import NoReturn

from fastcrc.crc64 import go_iso

from zchunked.errors import IntegrityError, LimitError
from zchunked.formats.frames import zstd as frames
from zchunked.formats.tars.tar_recipe import Steps, from_tarsplit
from zchunked.formats.tars.tarsplit import parse_lines
from zchunked.layers.chunk_data import BLOCK, PORTION, chunk_data, exactly, strides
from zchunked.layers.metadata import ChunkPlaces, LayerIndex
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest
from zchunked.store import Store

_EACH = 128  # what a chunk takes besides its contents, more or less
_SMALL = 8 << 10
_RECENT = 1 << 20  # small contents that are kept, as they recur
_ZEROS = bytes(BLOCK)

_Asked = tuple[Digest, int, int, int, int]
"""A chunk to decode: blob, start, length, decoded size, and its number among its neighbours."""
Block = tuple[bytes, list[Callable[[], None]]]
"""A part of the tar, and checks due before its use: of digests of files of several chunks."""
Arrived = Callable[[Digest, int], None]
"""Called before bytes of a blob below a position are read; returns when they are here."""


def at_once(_blob: Digest, _end: int) -> None:
    """Everything is here already."""


class Rebuild:
    """Rebuilds one partially stored layer. `places` says where each chunk lies, by raw digest."""

    def __init__(
        self,
        store: Store,
        index: LayerIndex,
        places: ChunkPlaces,
        arrived: Arrived = at_once,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._store, self._index, self._places = store, index, places
        self._arrived, self._limits = arrived, limits
        self._recent = _Recent()
        self._due: list[Callable[[], None]] = []

    def tar(self) -> Iterator[bytes]:
        """The tar in blocks.

        FormatError or IntegrityError at a contradiction; the caller checks the diff ID.
        """
        return verified_blocks(self.blocks())

    def blocks(self) -> Iterator[Block]:
        """The tar in blocks, with checks due before each, for `verified_blocks` elsewhere."""
        left = self._limits.tar_bytes
        for data in self._joined():
            left -= len(data)
            if left < 0:
                raise LimitError(
                    f"the layer's tar has more than {self._limits.tar_bytes} bytes, the limit"
                )
            due, self._due = self._due, []
            yield data, due

    def _joined(self) -> Iterator[bytes]:
        """What the steps stand for, in few blocks: each of them goes from thread to thread."""
        first = self._index.toc.first
        held: list[bytes] = []
        size = 0  # of the contents among them, and of what earlier batches left
        for steps, crcs in self._steps():
            entries = [step for step in steps if type(step) is int]
            chunks = [range(first[entry], first[entry + 1]) for entry in entries]
            contents = self._decoded(chain.from_iterable(chunks))
            payloads = zip(map(len, chunks), crcs, strict=False)
            for step in steps:
                if isinstance(step, bytes):
                    held.append(step)
                    continue
                for piece in self._payload(step, contents, payloads):
                    held.append(piece)
                    size += len(piece)
                    if size >= BLOCK:
                        yield b"".join(held)
                        held, size = [], 0
            if (size := sum(map(len, held))) >= BLOCK:
                yield b"".join(held)
                held, size = [], 0
        yield b"".join(held)

    def _payload(
        self,
        step: int,
        contents: Iterator[bytes | Iterable[bytes]],
        payloads: Iterator[tuple[int, int]],
    ) -> Iterable[bytes]:
        """The tar bytes of a step: of an entry, its share of the contents.

        `payloads`: chunk count, CRC.
        """
        data, (count, crc) = next(contents), next(payloads)
        if count > 1 or not isinstance(data, bytes):
            return self._file(step, chain((data,), islice(contents, count - 1)), crc)
        if go_iso(data) != crc:  # the way of nearly all files
            self._refuse(step)
        return (data,)

    def _decoded(self, chunks: Iterable[int]) -> Iterator[bytes | Iterable[bytes]]:
        """The decoded chunks, in order, batched; holes and long ones in pieces."""
        toc, places, recent = self._index.toc, self._places, self._recent
        digests, sizes, holes = toc.digests, toc.chunk_sizes, toc.holes
        some: list[bytes | int] = []  # what is known, or where in here it will stand
        asked: dict[bytes, _Asked] = {}
        held = 0
        for chunk in chunks:
            if held > PORTION:
                yield from self._load(some, asked)
                some, asked, held = [], {}, 0
            digest = digests[chunk]
            known: bytes | int | None = recent.get(digest)
            if known is None and digest in asked:
                known = asked[digest][4]
            if known is None:
                size, place = sizes[chunk], places.get(digest)
                cost = max(place.length, size) if place is not None and not holes[chunk] else 0
                if held + cost > PORTION or not cost:
                    yield from self._load(some, asked)
                    some, asked, held = [], {}, 0
                if place is None or not 0 < cost <= PORTION:
                    yield self._chunk(chunk)
                    continue
                known = len(some)
                asked[digest] = (*place, size, known)
                held += cost
            held += _EACH
            some.append(known)
        yield from self._load(some, asked)

    def _load(self, some: list[bytes | int], asked: dict[bytes, _Asked]) -> list[bytes]:
        """Decode what is asked for, and put it where it belongs."""
        rows = sorted(asked.values())
        pieces: list[bytes | memoryview] = []
        for blob, here in groupby(rows, itemgetter(0)):
            spans = [(start, start + length) for _, start, length, _, _ in here]
            self._arrived(blob, spans[-1][1])
            pieces += self._store.read_many(blob, spans)
        decoded = frames.decode_many(pieces, [row[3] for row in rows], self._limits)
        found: dict[int, bytes] = {}
        for (blob, start, length, size, at), data in zip(rows, decoded, strict=True):
            if data is None:
                raise IntegrityError(
                    f"chunk at [{start},{start + length}) of {blob}: no frame of {size} bytes"
                )
            found[at] = data
        self._recent.add((digest, found[row[4]]) for digest, row in asked.items())
        return [found[known] if isinstance(known, int) else known for known in some]

    def _steps(self) -> Iterator[Steps]:
        index = self._index
        part = index.tarsplit
        if part is None:
            raise IntegrityError(
                f"layer {index.layer.digest}: its chunks make no tar, for no digest vouches "
                "for a tar-split"
            )
        text = frames.stream(
            self._store.stream(index.layer.digest, part.span), self._limits, part.decoded_bytes
        )
        yield from from_tarsplit(
            index.toc, parse_lines(exactly(text, part.decoded_bytes), self._limits)
        )

    def _file(
        self, entry: int, contents: Iterable[bytes | Iterable[bytes]], want: int
    ) -> Iterator[bytes]:
        """A file of several chunks, or of a long one, or of holes. `want`: its CRC."""
        crc: int | None = None
        whole = hashlib.sha256() if entry in self._index.toc.file_digests else None
        flat = chain.from_iterable(
            (data,) if isinstance(data, bytes) else data for data in contents
        )
        for data in strides(flat):
            crc = go_iso(data, crc)
            if whole is not None:
                self._due.append(partial(whole.update, data))
            yield data
        if (crc or 0) != want:
            self._refuse(entry)
        if whole is not None:
            self._due.append(partial(self._compare, entry, whole))

    def _compare(self, entry: int, whole: hashlib._Hash) -> None:
        toc = self._index.toc
        if whole.digest() != toc.file_digests[entry]:
            raise IntegrityError(
                f"{toc.names[entry]!r:.80} does not match its digest in the TOC although its "
                "chunks do"
            )

    def _refuse(self, entry: int) -> NoReturn:
        raise IntegrityError(
            f"{self._index.toc.names[entry]!r:.80} does not match its checksum in the tar-split"
        )

    def _chunk(self, chunk: int) -> Iterable[bytes]:
        toc = self._index.toc
        size = toc.chunk_sizes[chunk]
        if toc.holes[chunk]:
            return _zeros(size)
        place = self._places.get(toc.digests[chunk])
        if place is None:
            raise IntegrityError(f"chunk {toc.digests[chunk].hex()} is not in the store")
        self._arrived(place.blob, place.start + place.length)
        return chunk_data(self._store, place, size, self._limits)


def verified_blocks(blocks: Iterable[Block]) -> Iterator[bytes]:
    """The blocks, after what is due before each of them."""
    for data, due in blocks:
        for task in due:
            task()
        yield data


class _Recent:
    """Small contents read lately, as packages repeat the same licence. Two generations."""

    def __init__(self) -> None:
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._bytes = 0  # of the young

    def get(self, digest: bytes) -> bytes | None:
        return self._young.get(digest) or self._old.get(digest)

    def add(self, contents: Iterable[tuple[bytes, bytes]]) -> None:
        for digest, data in contents:
            if len(data) <= _SMALL:
                self._young[digest] = data
                self._bytes += len(data) + _EACH
        if self._bytes > _RECENT:
            self._young, self._old, self._bytes = {}, self._young, 0


def _zeros(size: int) -> Iterator[bytes]:
    for at in range(0, size, BLOCK):
        yield _ZEROS[: min(BLOCK, size - at)]
