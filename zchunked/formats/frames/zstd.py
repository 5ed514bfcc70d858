"""Zstandard frames, decoded within limits, never by the frame's claim. The only zstandard.

Three traps shape this file: a one-shot decode obeys the size in the frame's header and not the
limit it is given, reads only the first of several frames, and a truncated stream ends without a
word. So every decode here demands an exact size or a complete last frame.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import zstandard

from zchunked.errors import FormatError, LimitError
from zchunked.limits import DEFAULT_LIMITS, Limits

_SKIPPABLE = frozenset(range(0x184D2A50, 0x184D2A60))
_MAGIC = b"\x28\xb5\x2f\xfd"
_SHORTEST_FRAME = 9
# How a window of 128 MiB is written (RFC 8878, 3.1.1.1.2): the library takes no wider one unasked.
_WIDEST = 17 << 3
_BLOCK_BYTES = 128 << 10  # no block is longer, neither encoded nor decoded (RFC 8878, 3.1.1.2.4)
_FEW_BLOCKS = 4  # of a long frame in one step: 512 KiB come out
_MOST_BLOCKS = 32  # of small frames in one step: 4 MiB at worst
_SMALL_BYTES = 64 << 10  # a frame that is longer is decoded as its blocks arrive


def _search(
    window: int, chain: int, table: int, search: int, *, is_lazy: bool
) -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters(
        window_log=window,
        chain_log=chain,
        hash_log=table,
        search_log=search,
        min_match=4,
        target_length=4 if is_lazy else 2,
        strategy=zstandard.STRATEGY_LAZY if is_lazy else zstandard.STRATEGY_GREEDY,
        write_checksum=True,
    )


# Of this level other searches are made for short contents, by their length: they find 1.1 % less in
# 3/4 of the time (`site-packages`), where the next lower level finds 1.9 % less in as much of it.
FRUGAL_LEVEL = 6
_FRUGAL_BYTES = (16 << 10, 128 << 10, 256 << 10)
_FRUGAL = (
    _search(14, 14, 14, 3, is_lazy=True),
    _search(17, 16, 17, 4, is_lazy=False),
    _search(18, 17, 18, 4, is_lazy=False),
    _search(21, 18, 19, 4, is_lazy=False),
)


class _PerThread(threading.local):
    """A decompressor per thread: cheap to reuse, not safe to share. Its window never shrinks."""

    def __init__(self) -> None:
        # its output is bounded, so its window needs no limit
        self.one_shot = zstandard.ZstdDecompressor()
        self.many = zstandard.ZstdDecompressor(max_window_size=DEFAULT_LIMITS.window_bytes)
        self.quick = zstandard.ZstdCompressor(level=1, write_checksum=True)


_OWN = _PerThread()


def decode(frames: bytes | memoryview, size: int, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Decode one or more whole frames to exactly `size` bytes, or raise FormatError.

    The caller has bounded `size`.
    """
    try:
        if zstandard.frame_content_size(frames) in (-1, size) and size:
            decoder = _OWN.one_shot if size <= _SMALL_BYTES else zstandard.ZstdDecompressor()
            whole = decoder.decompress(frames, max_output_size=size, allow_extra_data=False)
            if len(whole) == size:
                return whole
    except zstandard.ZstdError:
        pass  # several frames, or a broken one: the careful way finds out
    out = b"".join(stream([frames], limits, size))
    if len(out) != size:
        raise FormatError(f"frames decode to {len(out)} bytes instead of {size}")
    return out


def encode(data: bytes) -> bytes:
    """One frame, made quickly rather than small; it carries its size and a checksum."""
    return _OWN.quick.compress(data)


def encoded(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Encode pieces of `size` bytes in all; fewer or more make a broken frame, unnoticed."""
    encoder = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj(size)
    try:
        for piece in pieces:
            yield encoder.compress(piece)
        yield encoder.flush()
    except zstandard.ZstdError:
        return


def encode_many(contents: Sequence[bytes], level: int) -> list[bytes]:
    """A frame for each content, with its size and a checksum; depends on content and level alone.

    One call for all of a kind, which lets go of the interpreter's lock once.
    """
    if level != FRUGAL_LEVEL:
        return _encoded(contents, zstandard.ZstdCompressor(level=level, write_checksum=True))
    kinds = [bisect_left(_FRUGAL_BYTES, len(content)) for content in contents]
    made = {
        kind: iter(
            _encoded(
                [content for content, one in zip(contents, kinds, strict=True) if one == kind],
                zstandard.ZstdCompressor(compression_params=_FRUGAL[kind]),
            )
        )
        for kind in {*kinds}
    }
    return [next(made[kind]) for kind in kinds]


def _encoded(contents: Sequence[bytes], encoder: zstandard.ZstdCompressor) -> list[bytes]:
    if all(contents):  # the library takes no empty one
        with suppress(AttributeError):  # not every backend can do this
            made = encoder.multi_compress_to_buffer(list[bytes | bytearray | memoryview](contents))
            return [made[number].tobytes() for number in range(len(made))]
    return [encoder.compress(content) for content in contents]


class FrameEncoder:
    """One frame of a content that arrives in any pieces, which leave no trace; without its size."""

    def __init__(self, level: int) -> None:
        self._encoder = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()

    def feed(self, piece: bytes) -> bytes:
        return self._encoder.compress(piece)

    def finish(self) -> bytes:
        return self._encoder.flush()


def decode_many(
    chunks: Sequence[bytes | memoryview], sizes: Sequence[int], limits: Limits = DEFAULT_LIMITS
) -> list[bytes | None]:
    """Each as by `decode`, None where that fails. Sizes > 0, their sum bounded by the caller.

    One call for all: where threads compete for the interpreter, letting go of it once for each
    chunk costs more than to decode it (docs/performance.md).
    """
    sized: list[bytes | bytearray | memoryview] = []
    sized += [frame for frame in map(_telling, chunks, sizes) if frame is not None]
    out = None
    # of an empty list the library divides by zero, and the process is gone
    if 0 < len(sized) == len(chunks):
        # One of them may be broken, or the backend cannot do this.
        with suppress(zstandard.ZstdError, AttributeError):
            out = _OWN.many.multi_decompress_to_buffer(
                sized, decompressed_sizes=array("Q", sizes).tobytes()
            )
    if out is None:
        return [_decoded(*one, limits) for one in zip(chunks, sizes, strict=True)]
    return [out[number].tobytes() for number in range(len(out))]


def _decoded(frames: bytes | memoryview, size: int, limits: Limits) -> bytes | None:
    try:
        return decode(frames, size, limits)
    except FormatError:
        return None


def _telling(frame: bytes | memoryview, size: int) -> bytes | memoryview | None:
    """The frame with its size in its header, so that the library decodes straight into the output.

    Writers leave it out of frames that they do not know the end of. A wrong size is noticed, as it
    is without. None unless the blocks of one frame reach just to the end (RFC 8878, 3.1.1).
    """
    try:
        at, flags = zstandard.frame_header_size(frame), frame[4]
        is_last = 0
        while not is_last:
            header = frame[at] | frame[at + 1] << 8 | frame[at + 2] << 16
            # of a repeated byte there is one, whatever its count
            at += 4 if header & 6 == 2 else 3 + (header >> 3)
            is_last = header & 1
    except (zstandard.ZstdError, IndexError):
        return None
    # with its checksum; the library takes other first bytes
    if at + (flags & 4) != len(frame) or frame[:4] != _MAGIC:
        return None
    if flags & 0xFB:  # it tells already, or wants a dictionary
        return frame
    if frame[5] > _WIDEST:
        return None
    return b"".join(
        (_MAGIC, bytes((0xA0 | flags,)), size.to_bytes(4, "little"), memoryview(frame)[6:])
    )


def stream(
    pieces: Iterable[bytes | memoryview], limits: Limits = DEFAULT_LIMITS, most: int | None = None
) -> Iterator[bytes]:
    """Decode concatenated frames piece by piece; skippable frames give nothing.

    Raises FormatError when a frame is broken or unfinished at the end, and as soon as more than
    `most` bytes came out.
    """
    decoder = FrameDecoder(limits)
    left = limits.tar_bytes if most is None else most
    for piece in pieces:
        for data in decoder.feed(piece):
            left -= len(data)
            if left < 0:
                if most is None:
                    raise LimitError(
                        f"frames decode to more than {limits.tar_bytes} bytes, the limit"
                    )
                raise FormatError(f"frames decode to more than {most} bytes")
            yield data
    decoder.finish()


class FrameDecoder:
    """Push decoder over any cut of a sequence of frames. Bounds its output per step.

    It follows the headers of frames and blocks itself: so a step is as long as its output may be,
    and of small frames, of which a layer has hundreds of thousands, a step takes many.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        # Its own: two frames in progress may not share a decompressor.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=limits.window_bytes)
        self._held = b""  # of a header, a block or a small frame that has not come whole
        self._frame: zstandard.ZstdDecompressionObj | None = None  # a long one
        self._checksum = 0  # bytes of it that end that
        self._skip = 0

    def feed(self, piece: bytes | memoryview) -> Iterator[bytes]:
        """Output of the whole blocks that arrived, and of small frames whole."""
        data = self._held + piece
        view, at = memoryview(data), 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            elif self._frame is not None:
                step, is_last = _blocks(data, at, self._checksum)
                if step:
                    yield from self._push(self._frame, view[at : at + step])
                    self._frame = None if is_last else self._frame
            elif (step := _small_frames(data, at)) > 0:
                yield from self._push(
                    self._decompressor.decompressobj(read_across_frames=True), view[at : at + step]
                )
            elif step < 0:
                step = _header_size(data, at)
                self._frame, self._checksum = self._decompressor.decompressobj(), data[at + 4] & 4
                yield from self._push(self._frame, view[at : at + step])
            else:
                step = self._other(data, at)
            if not step:
                break  # until more of it has come
            at += step
        self._held = data[at:]

    def _other(self, data: bytes, at: int) -> int:
        """Length of the header of a skippable frame; 0 where more bytes are needed to tell."""
        if len(data) - at < 8 or data.startswith(_MAGIC, at):
            return 0
        if int.from_bytes(data[at : at + 4], "little") not in _SKIPPABLE:
            raise FormatError("broken zstd frame: these are not its first bytes")
        self._skip = int.from_bytes(data[at + 4 : at + 8], "little")
        return 8

    def _push(self, frame: zstandard.ZstdDecompressionObj, data: memoryview) -> Iterator[bytes]:
        try:
            out = frame.decompress(data)
        except zstandard.ZstdError as error:
            raise FormatError(f"broken zstd frame: {str(error)[:120]}") from error
        if out:
            yield out

    def finish(self) -> None:
        """Raise FormatError unless the last frame ended with the last byte."""
        if self._frame is not None or self._held or self._skip:
            raise FormatError("zstd frames end in the middle of a frame")


def _header_size(data: bytes, at: int) -> int:
    """Length of the header of the frame at this place (RFC 8878, 3.1.1.1)."""
    flags = data[at + 4]
    is_single = flags >> 5 & 1
    return 6 - is_single + (0, 1, 2, 4)[flags & 3] + (is_single, 2, 4, 8)[flags >> 6]


def _small_frames(data: bytes, at: int) -> int:
    """Length of the whole small frames here, as many as a step may take; -1: a long one."""
    here = start = at
    blocks = 0
    while start + _SHORTEST_FRAME <= len(data) and data.startswith(_MAGIC, start):
        here = start + _header_size(data, start)
        is_last = 0
        while (
            not is_last
            and here + 3 <= len(data)
            and here <= at + _SMALL_BYTES
            and blocks < _MOST_BLOCKS
        ):
            header = data[here] | data[here + 1] << 8 | data[here + 2] << 16
            here += 4 if header & 6 == 2 else 3 + (header >> 3)
            is_last = header & 1
            blocks += 1
        here += data[start + 4] & 4
        if not is_last or here > len(data):
            break
        start = here
    is_long = here > at + _SMALL_BYTES or blocks >= _MOST_BLOCKS
    return -1 if start == at and is_long else start - at


def _blocks(data: bytes, at: int, checksum: int) -> tuple[int, bool]:
    """Length of the whole blocks here, as many as a step may take; whether the frame ends."""
    here = at
    for _ in range(_FEW_BLOCKS):
        if here + 3 > len(data):
            break
        header = data[here] | data[here + 1] << 8 | data[here + 2] << 16
        step = 4 if header & 6 == 2 else 3 + (header >> 3)
        if step > _BLOCK_BYTES + 3:
            raise FormatError(f"broken zstd frame: a block of {step - 3} bytes")
        step += checksum if header & 1 else 0
        if here + step > len(data):
            break
        here += step
        if header & 1:
            return here - at, True
    return here - at, False
