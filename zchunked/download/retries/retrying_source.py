"""Retry a source: failed reads are resumed after the last byte that arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zchunked.download.retries.retry import Chameleon
from zchunked.errors import MultiRangeRefusedError, RangeIgnoredError, TransientError
from zchunked.interfaces import Announcing, Document, Failover, Pieces, Source
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, append_pieces, merge, subtract

_MOST_LESSONS = 20  # an honest host teaches how many spans it takes in far fewer
Keep = Callable[[Pieces], int]
"""Takes the pieces of one receive and returns how many of its bytes were new."""
Share = Callable[[list[ByteRange]], list[ByteRange]]
"""Given what is left after a failure; returns what of it to go on with: others do the rest."""


class RetryingSource:
    """A source whose failures karma may forgive; reads resume after the last byte that arrived."""

    def __init__(self, inner: Source, chameleon: Chameleon) -> None:
        self._inner = inner
        self._chameleon = chameleon
        if isinstance(inner, Announcing):
            inner.set_listener(chameleon.emit)

    def report_corruption(
        self, digest: Digest | None, spans: Sequence[ByteRange] | None = None
    ) -> None:
        """The bytes did not match their digest: a source with mirrors asks another one next."""
        if isinstance(self._inner, Failover):
            self._inner.report_corruption(digest, spans)

    def manifest(self, digest: Digest | None) -> Document:
        document = self._chameleon.run(lambda: self._inner.manifest(digest))
        self._chameleon.gain(len(document.data))
        return document

    def spans_per_request(self, blob: Descriptor) -> int:
        return max(1, self._inner.spans_per_request(blob))

    def serves_ranges(self, blob: Descriptor) -> bool:
        """Whether the host serves ranges, as far as is known now."""
        return self._inner.spans_per_request(blob) > 0

    def fetch(
        self,
        blob: Descriptor,
        spans: Sequence[ByteRange],
        keep: Keep,
        share: Share = lambda left: left,
    ) -> None:
        """Hand every byte of the spans to `keep`; after a failure go on with what `share` leaves.

        A host without ranges can only start again: then bytes arrive twice, and `keep` drops what
        it has.
        """
        download = _Download(self._inner, blob, spans, keep, share, self._chameleon)
        self._chameleon.run(download.resume, lambda: download.new_bytes)


class _Download:
    """One `fetch` and how far it got."""

    def __init__(
        self,
        source: Source,
        blob: Descriptor,
        spans: Sequence[ByteRange],
        keep: Keep,
        share: Share,
        chameleon: Chameleon,
    ) -> None:
        self._source, self._blob, self._chameleon = source, blob, chameleon
        self._keep, self._share = keep, share
        self._left = list(spans)
        self._has_broken = False
        self._is_whole = self._left == [ByteRange(0, blob.size)]
        self.new_bytes = 0  # new bytes since `resume` was called

    def resume(self) -> None:
        lessons = self.new_bytes = 0
        if self._has_broken and self._left:
            self._left = self._share(self._left)
        self._has_broken = True
        while self._left:
            before = self._left
            try:
                self._ask(before[: max(1, self._source.spans_per_request(self._blob))])
            except MultiRangeRefusedError as error:
                lessons += 1
                if lessons > _MOST_LESSONS:
                    raise TransientError(str(error)) from error
                continue  # the source has learnt: fewer spans at a time from here on
            except RangeIgnoredError:
                whole = [ByteRange(0, self._blob.size)]
                if not self._is_whole or self._left == whole:
                    raise
                self._left = whole
                continue
            except TransientError:
                if self._left:  # otherwise it broke behind the last byte
                    raise
            if self._left == before:
                raise TransientError("an answer without a byte of what was asked for")

    def _ask(self, spans: Sequence[ByteRange]) -> None:
        received: list[ByteRange] = []
        try:
            for pieces in self._source.read(self._blob, spans):
                append_pieces(received, pieces)
                with self._chameleon.local_work():
                    new = self._keep(pieces)
                self.new_bytes += new
                self._chameleon.gain(new)
        finally:
            self._left = subtract(self._left, merge(received))
