"""Recipe + store → the layer's tar, byte for byte. The diff ID is the judge of all of it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from fastcrc.crc64 import go_iso

from zchunked.digest import Digest, raw, short, verify
from zchunked.errors import FormatError, IntegrityError, LimitError
from zchunked.layer import frames
from zchunked.layer.locate import Location, Part, locate
from zchunked.layer.recipe import Content, Headers, Step, from_headers, from_tarsplit, header_spans
from zchunked.layer.tarsplit import parse_lines
from zchunked.layer.toc import Toc, parse_toc
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci import Descriptor
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.store import Place

_BLOCK = 256 << 10  # hashing releases the interpreter for pieces of some size only
_AT_ONCE = 1 << 20  # chunks above this are decoded as a stream
_PORTION = 512 << 10  # contents that are decoded before they are emitted
_ZEROS = bytes(_BLOCK)
_GZIP, _ZLIB_GZIP = b"\x1f\x8b", 31
_ZSTD = (b"\x28\xb5\x2f\xfd",)

Check = tuple[int, int, int, bytes]
"""A chunk to check in its blob: start, end, decoded size, raw digest."""
_Spanned = TypeVar("_Spanned", tuple[int, int, int], tuple[int, int, int, bytes])
Arrived = Callable[[Digest, int], None]
"""Called before bytes of a blob below a position are read; returns when they are here."""


def at_once(_blob: Digest, _end: int) -> None:
    """Everything is here already."""


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """A layer whose TOC was read and verified. `tarsplit` is None where no digest vouches for one."""

    layer: Descriptor
    location: Location
    toc: Toc
    tarsplit: Part | None

    @property
    def metadata(self) -> list[ByteRange]:
        """Spans of the layer's own blob, besides the chunks, without which its tar cannot be rebuilt."""
        return [*self.headers, *self.vouched]

    @property
    def vouched(self) -> list[ByteRange]:
        """Those that have a digest of their own."""
        return [self.location.toc.span, *([self.tarsplit.span] if self.tarsplit else [])]

    @property
    def headers(self) -> list[ByteRange]:
        """Header frames, wanted where no tar-split can be trusted; only the diff ID vouches for them."""
        return [] if self.tarsplit else header_spans(self.toc, self.location.toc.span.start)

    def own_chunks(self) -> dict[bytes, int]:
        """The layer's distinct chunks by raw digest, holes left out; the shortest copy of those that occur twice."""
        toc = self.toc
        own = dict(zip(toc.digests, range(len(toc.digests)), strict=True))
        if len(own) < len(toc.digests) or any(toc.holes):
            own = {}
            for chunk, digest in enumerate(toc.digests):
                known = own.get(digest)
                if not toc.holes[chunk] and (known is None or self.length(chunk) < self.length(known)):
                    own[digest] = chunk
        return own

    def length(self, chunk: int) -> int:
        """Compressed bytes of a chunk."""
        return self.toc.ends[chunk] - self.toc.starts[chunk]

    def place(self, chunk: int) -> Place:
        """Where the layer's own blob has it."""
        return Place(self.layer.digest, self.toc.starts[chunk], self.length(chunk))


def read_contents(store: Store, layer: Descriptor, limits: Limits = DEFAULT_LIMITS) -> Contents:
    """TOC and, where there is one, the tar-split's digest, checked. Both are in the store, or IntegrityError.

    Raises IntegrityError naming the damaged span's owner, FormatError, UnsupportedLayerError.
    """
    location = locate(layer, limits)
    toc = parse_toc(_decoded_toc(store, layer, location, limits), location.toc.span.start, limits)
    digest = toc.tarsplit_digest or location.tarsplit_digest
    if toc.tarsplit_digest and location.tarsplit is None:
        raise FormatError(f"layer {short(layer.digest)} has a tar-split digest in its TOC and no position for it")
    tarsplit = location.tarsplit if digest else None
    if tarsplit and digest:
        hasher = hashlib.sha256()
        for piece in store.stream(layer.digest, tarsplit.span):
            hasher.update(piece)
        if hasher.digest() != raw(digest):
            raise IntegrityError(
                f"tar-split of layer {short(layer.digest)}: want {digest}, got sha256:{hasher.hexdigest()}"
            )
    return Contents(layer, location, toc, tarsplit)


def _decoded_toc(store: Store, layer: Descriptor, location: Location, limits: Limits) -> bytes:
    span = location.toc.span
    data = store.read(layer.digest, span.start, span.end)
    verify(data, location.toc_digest, f"TOC of layer {short(layer.digest)}")
    return frames.decode(data, location.toc.decoded_bytes, limits)


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
        toc, loaded = self._contents.toc, self._load(steps)
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

    def _load(self, steps: list[Step]) -> dict[int, bytes]:
        """Decode the chunks of these steps, by number, save for holes and long ones, in as few reads as possible."""
        toc, places = self._contents.toc, self._places
        wanted: dict[Digest, list[tuple[int, int, int]]] = {}
        for step in steps:
            if isinstance(step, Content) and toc.sizes[step.entry] <= _PORTION:
                for chunk in range(toc.first[step.entry], toc.first[step.entry + 1]):
                    place = places.get(toc.digests[chunk])
                    if place is not None and not toc.holes[chunk] and place.length <= _PORTION:
                        wanted.setdefault(place.blob, []).append((place.start, place.start + place.length, chunk))
        loaded: dict[int, bytes] = {}
        for blob, found in wanted.items():
            found.sort()
            sizes = toc.chunk_sizes
            for here in _by_size(found, [sizes[chunk] for _, _, chunk in found]):
                self._arrived(blob, here[-1][1])
                pieces = self._store.read_many(blob, here)
                for (start, end, chunk), data in zip(here, pieces, strict=True):
                    try:
                        loaded[chunk] = frames.decode(data, sizes[chunk], self._limits)
                    except FormatError as error:
                        raise IntegrityError(f"chunk at [{start},{end}) of {blob}: {error}") from error
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
        for chunk in range(first, end):
            for data in (loaded[chunk],) if chunk in loaded else self._chunk(chunk):
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
    for some in _by_size(chunks, [size for _, _, size, _ in chunks]):
        try:
            pieces = store.read_many(blob, some) if len(some) > 1 else None
        except IntegrityError:  # a damaged file: some of them may be good all the same
            pieces = None
        if pieces is None:
            for start, end, size, digest in some:
                verdicts.append(is_chunk(store, Place(blob, start, end - start), size, digest, limits))
            continue
        for (_, _, size, digest), data in zip(some, pieces, strict=True):
            try:
                verdicts.append(hashlib.sha256(frames.decode(data, size, limits)).digest() == digest)
            except FormatError:
                verdicts.append(False)
    return verdicts


def _by_size(chunks: Sequence[_Spanned], sizes: Sequence[int]) -> Iterator[Sequence[_Spanned]]:
    """Neighbours that together fit into memory. `sizes`: of each, decoded."""
    first = held = 0
    for at, (chunk, decoded) in enumerate(zip(chunks, sizes, strict=True)):
        size = max(chunk[1] - chunk[0], decoded)
        if held + size > _PORTION and at > first:
            yield chunks[first:at]
            first, held = at, 0
        held += size
    if chunks:
        yield chunks[first:]


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


# ── layers that are here whole ──


def unpacked(pieces: Iterable[bytes], limits: Limits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """The tar inside a whole layer blob: zstd, gzip or plain, told by its first bytes as all container tools do."""
    stream = iter(pieces)
    head = b""
    for piece in stream:
        head += piece
        if len(head) >= 4:
            break
    rest = _chain(head, stream)
    if head[:2] == _GZIP:
        return _bounded(_gunzip(rest), limits)
    if head[:4] in _ZSTD or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return frames.stream(rest, limits)
    return _bounded(rest, limits)


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _bounded(pieces: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    left = limits.tar_bytes
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise LimitError(f"the layer's tar has more than the {limits.tar_bytes} bytes we accept")
        yield piece


def _gunzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Every member, to the last byte; zeros behind the last one are padding."""
    member = zlib.decompressobj(_ZLIB_GZIP)
    is_open = False
    for piece in pieces:
        data = piece
        while data:
            if not is_open:
                data = data.lstrip(b"\0") if member.eof else data
                if not data:
                    break
                member, is_open = zlib.decompressobj(_ZLIB_GZIP), True
            try:
                out = member.decompress(data, _BLOCK)
                while out:
                    yield out
                    data = member.unconsumed_tail
                    out = member.decompress(data, _BLOCK) if data or len(out) == _BLOCK else b""
            except zlib.error as error:
                raise FormatError(f"broken gzip layer: {error}") from error
            data = b""
            if member.eof:
                data, is_open = member.unused_data, False
    if is_open:
        raise FormatError("the gzip layer ends in the middle")
