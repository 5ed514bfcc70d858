"""Search a layer for wanted chunks: frame by frame by its TOC, otherwise file by file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

from zchunked.errors import FormatError
from zchunked.formats.frames.decompress import unpacked
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.seeds.chunk_copier import LONG, PIECE, ChunkCopier, contents, reader
from zchunked.seeds.layouts import toc_of
from zchunked.seeds.scan import BROKEN, Forward, members, opened
from zchunked.seeds.wanted import Wanted


class LayerReader:
    """Layers and compressed tars, for one worker at a time each. Thread-safe."""

    def __init__(
        self, copier: ChunkCopier, wanted: Wanted, check: Callable[[], None], spool: Path
    ) -> None:
        """`check` raises when the pull has ended; `spool` is a folder with room for long files."""
        self._copier, self._wanted, self._check, self._spool = copier, wanted, check, spool

    def layer(self, path: str, layer: Descriptor) -> None:
        """One blob of a layout; what is wrong with it does not matter."""
        try:
            handle = opened(path)
        except OSError:
            return
        try:
            toc = toc_of(handle, layer)
            if toc is None:
                self.compressed(contents(handle, 0, None))
                return
            rows = zip(toc.digests, toc.starts, toc.ends, toc.chunk_sizes, strict=True)
            for digest, start, end, size in rows:
                if self._wanted.lacks(digest, size):
                    self._check()
                    self._copier.copy_frame(handle, digest, size, ByteRange(start, end))
        except (*BROKEN, FormatError):
            pass
        finally:
            os.close(handle)

    def compressed(self, blob: Iterator[bytes]) -> None:
        """A compressed tar, from its beginning to its end. Raises one of BROKEN, FormatError."""
        source = Forward(unpacked(blob))
        for name, at, size in members(source):
            self._check()
            if not self._wanted:
                return
            if not self._wanted.may_hold(size, name):
                continue
            source.seek(at)
            if size <= LONG:
                data = source.read(size)
                self._copier.copy(
                    lambda start, length, data=data: data[start : start + length],  # type: ignore[misc]
                    len(data),
                    name,
                )
                continue
            with TemporaryFile(dir=self._spool) as spool:
                for start in range(0, size, PIECE):
                    self._check()
                    spool.write(source.read(min(PIECE, size - start)))
                spool.flush()
                self._copier.copy(reader(spool.fileno(), 0), size, name)
