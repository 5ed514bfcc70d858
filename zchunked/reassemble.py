"""Recipe + store → the layer's tar, byte for byte. The diff ID is the judge of all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NoReturn, TypeVar

from fastcrc.crc64 import go_iso

from zchunked.contents import Contents
from zchunked.digest import Digest
from zchunked.errors import FormatError, IntegrityError, LimitError
from zchunked.layer import frames
from zchunked.layer.recipe import Content, Headers, Step, from_headers, from_tarsplit
from zchunked.layer.tarsplit import parse_lines
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.store import Place

_BLOCK = 256 << 10  # hashing releases the interpreter for pieces of some size only
_AT_ONCE = 1 << 20  # chunks above this are decoded as a stream
_PORTION = 512 << 10  # contents that are decoded before they are emitted
_ZEROS = bytes(_BLOCK)

Check = tuple[int, int, int, bytes]
"""A chunk to check in its blob: start, end, decoded size, raw digest."""
_Item = TypeVar("_Item")
Arrived = Callable[[Digest, int], None]
"""Called before bytes of a blob below a position are read; returns when they are here."""


def at_once(_blob: Digest, _end: int) -> None:
    """Everything is here already."""


class Rebuild:
    """Rebuilds one partially stored layer. `places` says where each chunk lies, by raw digest."""

    def __init__(
        self, store: Store, contents: Contents, places: dict[bytes, Place], arrived: Arrived = at_once,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:  # fmt: skip
        self._store, self._contents, self._places = store, contents, places
        self._arrived, self._limits = arrived, limits

    def tar(self) -> Iterator[bytes]:
        """The tar in blocks. FormatError or IntegrityError at a contradiction; the caller checks the diff ID."""
        left = self._limits.tar_bytes
        for steps in self._steps():
            for some in self._portions(steps):
                for block in self._blocks(some):
                    left -= len(block)
                    if left < 0:
                        raise LimitError(f"the layer's tar has more than the {self._limits.tar_bytes} bytes we accept")
                    yield block

    def _blocks(self, steps: list[Step]) -> Iterator[bytes]:
        """What the steps of one portion stand for, in one block unless some of it is long."""
        toc = self._contents.toc
        short = [step.entry for step in steps if isinstance(step, Content) and toc.sizes[step.entry] <= _PORTION]
        loaded = self._load([chunk for entry in short for chunk in range(toc.first[entry], toc.first[entry + 1])])
        held: list[bytes] = []
        for step in steps:
            if isinstance(step, bytes):
                held.append(step)
                continue
            first = toc.first[step.entry] if isinstance(step, Content) else -1
            data = loaded.get(first)
            if data is not None and isinstance(step, Content) and toc.first[step.entry + 1] == first + 1:
                if step.crc is not None and go_iso(data).to_bytes(8, "big") != step.crc:
                    self._refuse(step)
                held.append(data)  # the way of nearly all files
                continue
            yield b"".join(held)
            held.clear()
            yield from self._headers(step) if isinstance(step, Headers) else self._content(step, loaded)
        yield b"".join(held)

    def _portions(self, steps: list[Step]) -> Iterator[list[Step]]:
        """Cut so that the contents of one portion may be held at once; a large file is a portion by itself."""
        sizes = self._contents.toc.sizes
        some: list[Step] = []
        size = 0
        for step in steps:
            more = sizes[step.entry] if isinstance(step, Content) else 0
            if some and size + more > _PORTION:
                yield some
                some, size = [], 0
            some.append(step)
            size += more
        yield some

    def _load(self, chunks: Iterable[int]) -> dict[int, bytes]:
        """Decode these chunks, save for holes and long ones, in as few reads as possible."""
        toc, places = self._contents.toc, self._places
        wanted: dict[Digest, list[tuple[int, int, int]]] = {}
        for chunk in chunks:
            place = places.get(toc.digests[chunk])
            if place is not None and not toc.holes[chunk] and max(place.length, toc.chunk_sizes[chunk]) <= _PORTION:
                wanted.setdefault(place.blob, []).append((place.start, place.start + place.length, chunk))
        loaded: dict[int, bytes] = {}
        for blob, found in wanted.items():
            found.sort()
            sizes = toc.chunk_sizes
            for here in _by_size(found, [max(end - start, sizes[chunk]) for start, end, chunk in found]):
                self._arrived(blob, here[-1][1])
                pieces = self._store.read_many(blob, here)
                decoded = frames.decode_many(pieces, [sizes[chunk] for _, _, chunk in here], self._limits)
                for (start, end, chunk), data in zip(here, decoded, strict=True):
                    if data is None:
                        raise IntegrityError(f"chunk at [{start},{end}) of {blob}: no frame of {sizes[chunk]} bytes")
                    loaded[chunk] = data
        return loaded

    def _steps(self) -> Iterator[list[Step]]:
        contents = self._contents
        part = contents.tarsplit
        if part is None:
            yield from from_headers(contents.toc, contents.location.toc.span.start)
            return
        text = frames.stream(self._store.stream(contents.layer.digest, part.span), self._limits, part.decoded_bytes)
        yield from from_tarsplit(contents.toc, parse_lines(_exactly(text, part.decoded_bytes), self._limits))

    def _headers(self, step: Headers) -> Iterator[bytes]:
        span, blob = step.span, self._contents.layer.digest
        self._arrived(blob, span.end)
        try:
            yield from frames.stream(self._store.stream(blob, span), self._limits)
        except LimitError:
            raise
        except FormatError as error:  # no digest vouches for them alone, so they may be damaged
            raise IntegrityError(f"header frames at {span} of {blob}: {error}") from error

    def _content(self, step: Content, loaded: dict[int, bytes]) -> Iterator[bytes]:
        """A file of several chunks, or of a long one, or of holes."""
        toc = self._contents.toc
        first, end = toc.first[step.entry], toc.first[step.entry + 1]
        crc: int | None = None
        whole = hashlib.sha256() if end - first > 1 else None
        for data in self._pieces(first, end, loaded):
            if step.crc is not None:
                crc = go_iso(data, crc)
            if whole is not None:
                whole.update(data)
            yield data
        if step.crc is not None and (crc or 0).to_bytes(8, "big") != step.crc:
            self._refuse(step)
        if whole is not None and whole.digest() != toc.file_digests[step.entry]:
            raise IntegrityError(
                f"{toc.names[step.entry]!r:.80} does not match its digest in the TOC although its chunks do"
            )

    def _pieces(self, first: int, end: int, loaded: dict[int, bytes]) -> Iterator[bytes]:
        """What the chunks [first, end) of one file decode to; small ones joined."""
        sizes = self._contents.toc.chunk_sizes
        for some in _by_size(range(first, end), sizes[first:end]):
            here = loaded if some[0] in loaded else self._load(some)
            for is_here, chunks in groupby(some, here.__contains__):
                if is_here:
                    yield b"".join([here[chunk] for chunk in chunks])
                else:
                    for chunk in chunks:
                        yield from self._chunk(chunk)

    def _refuse(self, step: Content) -> NoReturn:
        raise IntegrityError(
            f"{self._contents.toc.names[step.entry]!r:.80} does not match its checksum in the tar-split"
        )

    def _chunk(self, chunk: int) -> Iterable[bytes]:
        toc = self._contents.toc
        size = toc.chunk_sizes[chunk]
        if toc.holes[chunk]:
            return _zeros(size)
        place = self._places.get(toc.digests[chunk])
        if place is None:
            raise IntegrityError(f"chunk {toc.digests[chunk].hex()} is not in the store")
        self._arrived(place.blob, place.start + place.length)
        return chunk_data(self._store, place, size, self._limits)


def chunk_data(store: Store, place: Place, size: int, limits: Limits = DEFAULT_LIMITS) -> Iterable[bytes]:
    """The decoded bytes of a chunk, `size` of them or IntegrityError; its digest is not checked here."""
    end = place.start + place.length
    if size <= _AT_ONCE and place.length <= _AT_ONCE:
        try:
            return (frames.decode(store.read(place.blob, place.start, end), size, limits),)
        except FormatError as error:
            raise IntegrityError(f"chunk at [{place.start},{end}) of {place.blob}: {error}") from error
    return _long_chunk(store, place, size, limits)


def _long_chunk(store: Store, place: Place, size: int, limits: Limits) -> Iterator[bytes]:
    span = ByteRange(place.start, place.start + place.length)
    try:
        yield from _exactly(frames.stream(store.stream(place.blob, span), limits, size), size)
    except FormatError as error:
        raise IntegrityError(f"chunk at {span} of {place.blob}: {error}") from error


def are_chunks(store: Store, blob: Digest, chunks: Sequence[Check], limits: Limits = DEFAULT_LIMITS) -> list[bool]:
    """For each (start, end, decoded size, raw digest) of a blob, ascending, whether the bytes keep the promise."""
    verdicts: list[bool] = []
    for some in _by_size(chunks, [max(end - start, size) for start, end, size, _ in chunks]):
        try:
            pieces = store.read_many(blob, some) if len(some) > 1 else None
        except IntegrityError:  # a damaged file: some of them may be good all the same
            pieces = None
        if pieces is None:
            for start, end, size, digest in some:
                verdicts.append(is_chunk(store, Place(blob, start, end - start), size, digest, limits))
            continue
        decoded = frames.decode_many(pieces, [size for _, _, size, _ in some], limits)
        verdicts += [
            data is not None and hashlib.sha256(data).digest() == digest
            for data, (_, _, _, digest) in zip(decoded, some, strict=True)
        ]
    return verdicts


def _by_size(items: Sequence[_Item], sizes: Sequence[int]) -> Iterator[Sequence[_Item]]:
    """Neighbours that together fit into memory, as far as that can be."""
    first = held = 0
    for at, size in enumerate(sizes):
        if held + size > _PORTION and at > first:
            yield items[first:at]
            first, held = at, 0
        held += size
    if items:
        yield items[first:]


def is_chunk(store: Store, place: Place, size: int, digest: bytes, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether the bytes at `place` are what the raw digest promises."""
    hasher = hashlib.sha256()
    try:
        for data in chunk_data(store, place, size, limits):
            hasher.update(data)
    except IntegrityError:
        return False
    return hasher.digest() == digest


def _zeros(size: int) -> Iterator[bytes]:
    for at in range(0, size, _BLOCK):
        yield _ZEROS[: min(_BLOCK, size - at)]


def _exactly(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    left = size
    for piece in pieces:
        left -= len(piece)
        yield piece
    if left:
        raise FormatError(f"frames decode to {size - left} bytes instead of {size}")
