"""Objects of a layout in a bucket (S3, Google, Azure), read one range at a time, unretried."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zchunked.errors import LimitError, RangeIgnoredError, TransferError, TransientError
from zchunked.events import Requested
from zchunked.interfaces import Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.documents import Descriptor
from zchunked.oci.reference import LayoutReference
from zchunked.ranges import ByteRange
from zchunked.sources.layout import check_size
from zchunked.sources.network import Network
from zchunked.sources.objects.bucket import Bucket, connect, milliseconds
from zchunked.sources.traffic import Traffic

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

_FOREVER = "30days"  # of a whole request: only silence ends one, however slow the link


def open_bucket(reference: LayoutReference, network: Network) -> BucketObjects:
    """The objects below a bucket's prefix. Raises UsageError for settings that cannot be meant."""
    client = {"read_timeout": milliseconds(network.stall_seconds), "timeout": _FOREVER}
    bucket = connect(reference, network, client, retries=0)
    return BucketObjects(bucket, network.traffic, limits=network.limits)


class BucketObjects:
    """A bucket as `Objects`. One range per request: no bucket serves more."""

    def __init__(
        self, bucket: Bucket, traffic: Traffic, *, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.name = bucket.name
        self._bucket, self._traffic, self._limits = bucket, traffic, limits

    def close(self) -> None:
        """Connections end with the process; there is no way to end them before."""

    def get(self, path: str, most: int) -> bytes:
        what = f"{self.name}/{path}"
        result = self._ask(path, {}, what)
        if (size := int(result.meta["size"])) > most:
            raise LimitError(f"{what} has {size} bytes, the limit is {most}")
        return b"".join(self._pieces(result, what))

    def spans_per_request(self, path: str, blob: Descriptor) -> int:
        return 1

    def read(self, path: str, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        what = f"{self.name}/{path}"
        for span in spans:
            is_whole = span == ByteRange(0, blob.size)
            try:
                result = self._ask(
                    path, {} if is_whole else {"range": (span.start, span.end)}, what
                )
            except RangeIgnoredError:
                if span is spans[0]:
                    raise
                raise TransientError(
                    f"{what}: a range is refused after other ranges were served"
                ) from None
            check_size(blob, int(result.meta["size"]), self.name)
            if tuple(result.range) != (span.start, span.end):
                raise TransferError(
                    f"{what}: asked for {span}, the answer holds {ByteRange(*result.range)}"
                )
            at = span.start
            for piece in self._pieces(result, what):
                yield [(at, piece)]
                at += len(piece)

    def _ask(self, path: str, options: GetOptions, what: str) -> GetResult:
        import obstore  # noqa: PLC0415 - an extra

        began = time.monotonic()
        try:
            result = obstore.get(self._bucket.store, path, options=options)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self._counted(error, what, began) from None
        start, end = result.range
        ranges = f"bytes={start}-{end - 1}" if options else ""
        self._traffic.asked(
            Requested("GET", what, 206 if options else 200, time.monotonic() - began, ranges)
        )
        self._traffic.answered(time.monotonic() - began)
        return result

    def _pieces(self, result: GetResult, what: str) -> Iterator[bytes]:
        """Every byte received before a break is yielded before the error."""
        import obstore  # noqa: PLC0415 - an extra

        self._traffic.begun()
        try:
            pieces: Iterable[Any] = result.stream(min_chunk_size=1)
            for piece in pieces:
                self._traffic.received(len(piece))
                yield bytes(piece)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self._bucket.answered(error, what).error from None
        finally:
            self._traffic.ended()

    def _counted(self, error: Exception, what: str, began: float) -> Exception:
        """Count a failed request: an error is a response too, unless no server could be reached."""
        answered = self._bucket.answered(error, what)
        if answered.has_asked:
            self._traffic.asked(Requested("GET", what, 0, time.monotonic() - began))
        self._traffic.received(answered.body_bytes)
        return answered.error
