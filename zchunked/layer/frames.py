"""Zstandard frames, bounded by our numbers and never by the frame's own claim. The only zstandard.

Three traps shape this file: a one-shot decode obeys the size in the frame's header and not the limit it is given, reads
only the first of several frames, and a truncated stream ends without a word. So every decode here demands an exact
size or a complete last frame.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence

import zstandard

from zchunked.errors import FormatError, LimitError
from zchunked.limits import DEFAULT_LIMITS, Limits

_SKIPPABLE = frozenset(range(0x184D2A50, 0x184D2A60))
_STEP = 1 << 10  # bytes in at a time: a block of 4 bytes may bring out 128 KiB, so this bounds a step to 32 MiB


class _PerThread(threading.local):
    """A decompressor is cheap to use again and not safe to share."""

    def __init__(self) -> None:
        self.one_shot = zstandard.ZstdDecompressor()  # its output is bounded, so its window needs no limit
        self.many = zstandard.ZstdDecompressor(max_window_size=DEFAULT_LIMITS.window_bytes)
        self.quick = zstandard.ZstdCompressor(level=1, write_checksum=True)


_OWN = _PerThread()


def decode(frames: bytes | memoryview, size: int, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Exactly `size` bytes out of one or more whole frames, or FormatError. The caller has bounded `size`."""
    try:
        if zstandard.frame_content_size(frames) in (-1, size) and size:
            whole = _OWN.one_shot.decompress(frames, max_output_size=size, allow_extra_data=False)
            if len(whole) == size:
                return whole
    except zstandard.ZstdError:
        pass  # several frames, or a broken one: the careful way tells which
    out = b"".join(stream([frames], limits, size))
    if len(out) != size:
        raise FormatError(f"frames decode to {len(out)} bytes instead of {size}")
    return out


def encode(data: bytes) -> bytes:
    """One frame, made quickly rather than small; it carries its size and a checksum."""
    return _OWN.quick.compress(data)


def encoded(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same for pieces of `size` bytes in all. Fewer or more of them make a broken frame, and no error."""
    encoder = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj(size)
    try:
        for piece in pieces:
            yield encoder.compress(piece)
        yield encoder.flush()
    except zstandard.ZstdError:
        return


def decode_many(
    chunks: Sequence[bytes | memoryview], sizes: Sequence[int], limits: Limits = DEFAULT_LIMITS
) -> list[bytes | None]:
    """Each as by `decode`, None where that raises FormatError. Sizes are above 0, and the caller has bounded their sum.

    One call for all: where threads compete for the interpreter, letting go of it once for each chunk costs more than to
    decode it (docs/performance.md).
    """
    # Of an empty list the library divides by zero, and the process is gone.
    if not chunks or not all(map(_is_one_frame, chunks)):
        return [_decoded(*one, limits) for one in zip(chunks, sizes, strict=True)]
    try:
        out = _OWN.many.multi_decompress_to_buffer(list(chunks), decompressed_sizes=array("Q", sizes).tobytes())
    except (zstandard.ZstdError, AttributeError):  # one of them is broken, or the backend cannot do this
        return [_decoded(*one, limits) for one in zip(chunks, sizes, strict=True)]
    return [out[number].tobytes() for number in range(len(out))]


def _decoded(frames: bytes | memoryview, size: int, limits: Limits) -> bytes | None:
    try:
        return decode(frames, size, limits)
    except FormatError:
        return None


def _is_one_frame(data: bytes | memoryview) -> bool:
    """Whether the blocks of a frame at the start reach just to the end of `data` (RFC 8878, 3.1.1)."""
    try:
        at = zstandard.frame_header_size(data)
        checksum = 4 if data[4] & 4 else 0
        while True:
            header = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            at += 4 if header & 6 == 2 else 3 + (header >> 3)  # of a repeated byte there is one, whatever its count
            if header & 1:
                return at + checksum == len(data)
    except (zstandard.ZstdError, IndexError):
        return False


def stream(
    pieces: Iterable[bytes | memoryview], limits: Limits = DEFAULT_LIMITS, most: int | None = None
) -> Iterator[bytes]:
    """Decode concatenated frames piece by piece; skippable frames give nothing.

    Raises FormatError when a frame is broken or unfinished at the end, and as soon as more than `most` bytes came out.
    """
    decoder = FrameDecoder(limits)
    left = limits.tar_bytes if most is None else most
    for piece in pieces:
        for data in decoder.feed(piece):
            left -= len(data)
            if left < 0:
                if most is None:
                    raise LimitError(f"frames decode to more than the {limits.tar_bytes} bytes we accept")
                raise FormatError(f"frames decode to more than {most} bytes")
            yield data
    decoder.finish()


class FrameDecoder:
    """Push decoder over any cut of a sequence of frames. Output per step is bounded, whatever the compression ratio."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        # Its own: two frames in progress may not share a decompressor.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=limits.window_bytes)
        self._held = bytearray()  # a frame's first bytes, until its kind is known
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._skip = 0

    def feed(self, piece: bytes | memoryview) -> Iterator[bytes]:
        view = memoryview(piece)
        while view:
            if self._skip:
                step = min(self._skip, len(view))
                self._skip -= step
                view = view[step:]
            elif self._frame is None:
                take = (4 if len(self._held) < 4 else 8) - len(self._held)
                self._held += view[:take]
                view = view[take:]
                if len(self._held) == 4 and int.from_bytes(self._held, "little") not in _SKIPPABLE:
                    self._frame = self._decompressor.decompressobj()
                    start, self._held = bytes(self._held), bytearray()
                    yield from self._push(start)
                elif len(self._held) == 8:
                    self._skip = int.from_bytes(self._held[4:], "little")
                    self._held.clear()
            else:
                head, view = view[:_STEP], view[_STEP:]
                yield from self._push(head)

    def _push(self, data: bytes | memoryview) -> Iterator[bytes]:
        frame = self._frame
        assert frame is not None
        try:
            out = frame.decompress(data)
        except zstandard.ZstdError as error:
            raise FormatError(f"broken zstd frame: {str(error)[:120]}") from error
        if out:
            yield out
        if frame.eof:
            self._frame = None
            if frame.unused_data:
                yield from self.feed(frame.unused_data)

    def finish(self) -> None:
        """Raise FormatError unless the last frame ended with the last byte."""
        if self._frame is not None or self._held or self._skip:
            raise FormatError("zstd frames end in the middle of a frame")
