"""Convert a stored layer to a zstd:chunked blob; remembered, so that shared bases are done once."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import msgspec

from zchunked.errors import UnsupportedLayerError, UsageError
from zchunked.export.images.layers import LayerContent
from zchunked.formats.annotations import is_current, other_annotations
from zchunked.formats.frames import zstd
from zchunked.formats.tars.tar_rewrite import TarRewriter
from zchunked.formats.writing.toc_writer import Submit, at_once
from zchunked.formats.writing.writer import DEFAULT_LEVEL, MEDIA_TYPE, LayerWriter
from zchunked.oci.digest import Digest, from_raw
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.store import Store

MOST_LEVEL = 19
_FORMAT = "zstd:chunked 4"  # changes when the same tar and level shall give other bytes
Outcome = Literal["converted", "remembered", "kept", "plain"]


@dataclass(frozen=True, slots=True)
class ConvertSettings:
    """`rewrite` changes the tar first, and with it the diff ID."""

    level: int = DEFAULT_LEVEL
    rewrite: TarRewriter | None = None

    @classmethod
    def of(cls, level: int, latest: int | None, *, normalize: bool) -> ConvertSettings:
        """`latest`: no file stays younger, in seconds since 1970.

        UsageError for a level not in 1 to 19.
        """
        if not 1 <= level <= MOST_LEVEL:
            raise UsageError(f"invalid level: expected 1 to {MOST_LEVEL}, got {level}")
        rewrites = normalize or latest is not None
        return cls(level, TarRewriter(latest, normalize) if rewrites else None)

    def __str__(self) -> str:
        """The words by which results are remembered."""
        return " ".join(filter(None, (_FORMAT, f"level={self.level}", str(self.rewrite or ""))))


@dataclass(frozen=True, slots=True)
class ConvertedLayer:
    """`layer` is whole in the store, and its tar has the diff ID.

    `note`: why it is plain, where it is.
    """

    source: Descriptor
    layer: Descriptor
    diff_id: Digest
    tar_bytes: int
    outcome: Outcome
    note: str = ""


class _Result(msgspec.Struct):
    """What is remembered of a conversion."""

    digest: str
    size: int
    diff_id: str
    tar_bytes: int
    annotations: dict[str, str]
    note: str


_RESULT = msgspec.json.Decoder(_Result)


class LayerConverter:
    """Converts layers of stored images. Safe to use from several threads, for different layers."""

    def __init__(
        self,
        store: Store,
        settings: ConvertSettings,
        submit: Submit = at_once,
        most_pending: int = 0,
    ) -> None:
        """`submit` and `most_pending` as `LayerWriter` takes them."""
        self._store, self._settings = store, settings
        self._submit, self._most_pending = submit, most_pending

    def convert(self, content: LayerContent) -> ConvertedLayer:
        """DamagedLayerError where stored bytes are not what was proved, LocalError: disk full."""
        source, settings = content.layer, str(self._settings)
        if content.is_whole and self._settings.rewrite is None and is_current(source):
            return ConvertedLayer(source, source, content.diff_id, content.tar_size, "kept")
        outcome: Outcome = "remembered"
        result = self._recall(content.diff_id, settings)
        if result is None:
            result, outcome = self._make(content), "converted"
            self._store.hints.remember_conversion(
                content.diff_id, settings, msgspec.json.encode(result)
            )
        if (
            result.note
            and content.is_whole
            and source.media_type == MEDIA_TYPE
            and self._settings.rewrite is None
        ):
            return ConvertedLayer(
                source, source, content.diff_id, content.tar_size, "plain", result.note
            )
        digest, diff_id = Digest(result.digest), Digest(result.diff_id)
        self._store.add_proof(digest, diff_id, result.tar_bytes)
        layer = Descriptor(
            MEDIA_TYPE, digest, result.size, other_annotations(source) | result.annotations
        )
        outcome = "plain" if result.note else outcome
        return ConvertedLayer(source, layer, diff_id, result.tar_bytes, outcome, result.note)

    def _recall(self, diff_id: Digest, settings: str) -> _Result | None:
        data = self._store.hints.recall_conversion(diff_id, settings)
        if data is None:
            return None
        result = _RESULT.decode(data)
        digest = Digest(result.digest)
        # To look at its extents pins the blob, so that a collection that runs meanwhile leaves it.
        is_here = self._store.covers(
            digest, ByteRange(0, max(result.size, 1))
        ) and self._store.is_whole(digest)
        return result if is_here else None

    def _make(self, content: LayerContent) -> _Result:
        writer = LayerWriter(self._settings.level, self._submit, self._most_pending)
        try:
            with closing(self._tar(content)) as tar:
                known = content.diff_id if self._settings.rewrite is None else None
                digest, size = self._store.keep(writer.blob(tar, known))
        except UnsupportedLayerError as error:
            try:
                return self._make_plain(content, str(error))
            except UnsupportedLayerError:  # it cannot even be rewritten
                return self._make_plain(
                    content, f"{error}, so its headers stay as they are", as_is=True
                )
        written = writer.written
        assert written is not None
        return _Result(digest, size, written.diff_id, written.tar_bytes, written.annotations, "")

    def _make_plain(self, content: LayerContent, note: str, *, as_is: bool = False) -> _Result:
        """One frame without a TOC, for a tar that no TOC could describe."""
        encoder, hasher, tar_bytes = zstd.FrameEncoder(self._settings.level), hashlib.sha256(), 0

        def frame() -> Iterator[bytes]:
            nonlocal tar_bytes
            with closing(self._tar(content, as_is=as_is)) as tar:
                for piece in tar:
                    hasher.update(piece)
                    tar_bytes += len(piece)
                    yield encoder.feed(piece)
            yield encoder.finish()

        digest, size = self._store.keep(frame())
        return _Result(digest, size, from_raw(hasher.digest()), tar_bytes, {}, note)

    def _tar(self, content: LayerContent, *, as_is: bool = False) -> Generator[bytes, None, None]:
        """What is to be written, verified against the image's diff ID before it is changed."""
        pieces, rewrite = map(bytes, content.tar()), self._settings.rewrite
        yield from pieces if as_is or rewrite is None else rewrite(pieces)
