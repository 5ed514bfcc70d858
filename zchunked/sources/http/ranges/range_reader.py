"""Read ranges of blobs over HTTP: one or several spans a request, whatever the host answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial

from zchunked.errors import (
    AccessDeniedError,
    MultiRangeRefusedError,
    RangeIgnoredError,
    TransientError,
)
from zchunked.interfaces import HostMemory, Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, Spans, append_pieces, merge, range_header, subtract
from zchunked.sources.http.endpoint import TRIES, RegistryEndpoint
from zchunked.sources.http.errors.status_errors import is_page, page_error
from zchunked.sources.http.locations.blob_locations import BlobLocations
from zchunked.sources.http.ranges.range_body import Holds, RangeBody
from zchunked.sources.http.ranges.range_response import clip, understand
from zchunked.sources.http.response import HttpResponse

_RANGE_HEADER_BYTES = 4096  # what any server takes
# spans in one request, for hosts that take several: about 4 KiB; Apache httpd gives up beyond 200
_MANY = 185
_SMALL = (16, 64 << 10)  # bytes of an object that is good for a probe: a config
_TOO_MANY = frozenset({400, 413, 414, 431})

_Opened = tuple[HttpResponse, Holds]


class BlobReader:
    """The blobs of one server, read as `Source` promises. Thread-safe."""

    def __init__(
        self,
        server: RegistryEndpoint,
        path_of: Callable[[Digest], str],
        *,
        hosts: HostMemory | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`path_of`: where the server has a blob."""
        self._server, self._limits = server, limits
        self._hosts: HostMemory = hosts if hosts is not None else RunMemory()
        self.locations = BlobLocations(server, path_of)

    def spans_per_request(self, blob: Descriptor) -> int:
        """1 for an unknown host; `read` may be asked for more all the same, to find out."""
        known = self._hosts.recall(self.locations.host_of(blob))
        return 1 if known is None else min(known, most_spans(blob))

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """Several spans go into one request, unless the host is known to take one at a time.

        What a multi-range answer leaves out is asked for again here, one span after the other.
        Raises MultiRangeRefusedError before the first pieces when the host takes no more than one;
        that is then known.
        """
        left = list(spans)
        if self._may_probe(blob, left):
            # A small object tells what the host can do, at the price of two part headers.
            middle = blob.size // 2
            halves = [ByteRange(0, middle), ByteRange(middle, blob.size)]
            with suppress(MultiRangeRefusedError):
                left = yield from self._read_many(blob, halves)
        elif len(left) > 1:
            left = yield from self._read_many(blob, left)
        has_begun = left != list(spans)
        for span in left:
            try:
                for pieces in self._read_one(blob, span):
                    has_begun = True
                    yield pieces
            except RangeIgnoredError as error:
                if not has_begun:
                    raise
                raise TransientError(f"{error}, after other ranges were served") from error

    def _read_many(
        self, blob: Descriptor, spans: list[ByteRange]
    ) -> Generator[Pieces, None, list[ByteRange]]:
        """As many spans in one request as the host takes; returns what did not arrive."""
        left, most, has_begun = spans, most_spans(blob), False
        while len(left) > 1 and (self._hosts.recall(self.locations.host_of(blob)) or _MANY) > 1:
            asked = left[
                : min(most, max(2, self._hosts.recall(self.locations.host_of(blob)) or _MANY))
            ]
            received: list[ByteRange] = []
            try:
                for pieces in self._read_several(blob, asked):
                    append_pieces(received, pieces)
                    has_begun = True
                    yield pieces
            except MultiRangeRefusedError:
                if not has_begun:
                    raise
            missing = subtract(asked, merge(received))
            left = missing + left[len(asked) :]
            # nothing at all counts too: a host that answers so is asked for one span at a time
            if missing:
                self._hosts.learn(self.locations.host_of(blob), 1)
        return left

    def _may_probe(self, blob: Descriptor, spans: list[ByteRange]) -> bool:
        is_small = _SMALL[0] <= blob.size <= _SMALL[1] and spans == [ByteRange(0, blob.size)]
        return is_small and self._hosts.recall(self.locations.host_of(blob)) is None

    def _read_one(self, blob: Descriptor, span: ByteRange) -> Iterator[Pieces]:
        at = None
        for pieces in self._bodies(blob, [span]):
            for number, (position, piece) in enumerate(pieces):
                if at is not None and position != at:
                    if number:
                        yield pieces[:number]
                    raise TransientError(
                        f"blob {short(blob.digest)}: one range is answered with parts out of order"
                    )
                at = position + len(piece)
            yield pieces
        at = span.start if at is None else at
        if at < span.end:
            raise TransientError(
                f"blob {short(blob.digest)}: {span.end - at} bytes of {span} did not come"
            )

    def _read_several(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """Bytes of the spans and no others, in the server's order; perhaps not all of them."""
        asked = Spans(spans)
        for pieces in self._bodies(blob, spans):
            if all(asked.hold(position, position + len(piece)) for position, piece in pieces):
                yield pieces
            elif within := list(_clipped(pieces, spans)):
                yield within

    def _bodies(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """Pieces that one request receives, and where in the blob they belong."""
        response, holds = self._open(blob, spans)
        host = response.host

        def learn(is_sound: bool) -> None:  # noqa: FBT001 - a callback
            if not is_sound:
                self._hosts.learn(host, 1)
            elif (self._hosts.recall(host) or 0) < 2:
                self._hosts.learn(host, _MANY)

        body = RangeBody(response, holds, blob, self._what(blob, host), self._limits)
        yield from body.pieces(spans, learn)

    def _what(self, blob: Descriptor, host: str) -> str:
        return f"{self._server.name}: blob {short(blob.digest)} at {host}"

    # ── finding the bytes ──

    def _open(self, blob: Descriptor, spans: Sequence[ByteRange]) -> _Opened:
        """A response whose body holds what was asked for.

        The server is asked where a blob is by one thread, once; the others wait for that and go
        there directly.
        """
        locations = self.locations
        for turn in range(TRIES):
            is_last = turn == TRIES - 1
            target = None if is_last else locations.known(blob.digest)
            if target is None:
                own: list[_Opened] = []
                look = partial(self._look, blob, spans, own)
                target = look() if is_last else locations.found(blob.digest, look)
                if own:
                    return own[0]
            response = locations.ask(target, _headers(blob, spans), blob.digest)
            if not locations.has_expired(response, target, blob.digest):
                return self._settled(response, blob, spans)
            response.excerpt()
            locations.forget(blob.digest, target)
        what = f"{self._server.name}: the host of blob {short(blob.digest)}"
        raise AccessDeniedError(f"{what} refuses every new URL")

    def _look(self, blob: Descriptor, spans: Sequence[ByteRange], own: list[_Opened]) -> str:
        """Find where the server redirects for this blob.

        A response from there goes to `own`, the caller's.
        """
        response = self.locations.ask_server(blob, _headers(blob, spans))
        try:
            own.append(self._settled(response, blob, spans))
        except (RangeIgnoredError, MultiRangeRefusedError):
            # the bytes are there, only not in this way
            self.locations.note(blob.digest, response.url)
            raise
        self.locations.note(blob.digest, response.url)
        return response.url

    def _settled(
        self, response: HttpResponse, blob: Descriptor, spans: Sequence[ByteRange]
    ) -> _Opened:
        """A response that `_checked` passed.

        A host may refuse ranges with 403 and send the whole blob.
        """
        if response.status == 403 and _headers(blob, spans):
            denied = response.status_error(self._what(blob, response.host))
            response = self.locations.ask(response.url, {}, blob.digest)
            if response.status != 200:
                response.excerpt()
                raise denied
        return response, self._checked(response, blob, spans)

    def _checked(
        self, response: HttpResponse, blob: Descriptor, spans: Sequence[ByteRange]
    ) -> Holds:
        """Raise, and close the response, unless its body has bytes of the spans.

        Notes the host's habits.
        """
        host = response.host
        if (
            response.status == 200
            and response.length not in (None, blob.size)
            and is_page(response.headers, b"<")
        ):
            page = response.excerpt()
            raise page_error(self._what(blob, host), page)
        try:
            holds = understand(response.status, response.headers, blob, spans, self._limits)
        except RangeIgnoredError:
            self._hosts.learn(host, 0)
            self._dismiss(response, blob)
            raise
        except MultiRangeRefusedError:
            # One that has taken several may find these too many; others mean that one is the most
            # they take.
            is_too_many = response.status in _TOO_MANY and (self._hosts.recall(host) or 0) > 1
            self._hosts.learn(host, max(1, len(spans) // 2) if is_too_many else 1)
            self._dismiss(response, blob)
            raise
        except BaseException:
            response.close()
            raise
        if holds is None:
            raise response.status_error(self._what(blob, host))
        is_unasked = (
            isinstance(holds, ByteRange) and holds.size == blob.size and list(spans) != [holds]
        )
        if is_unasked and response.status == 200:
            self._hosts.learn(host, 0)
        if response.status == 206 and self._hosts.recall(host) == 0:
            self._hosts.learn(host, 1)
        return holds

    def _dismiss(self, response: HttpResponse, blob: Descriptor) -> None:
        """Drop a response: a short body is read, which keeps the connection; a large one is not."""
        if response.status >= 400 or blob.size <= self._limits.error_body_bytes:
            response.excerpt()
        response.close()


def _clipped(
    pieces: Pieces, spans: Sequence[ByteRange]
) -> Iterator[tuple[int, bytes | memoryview]]:
    for position, piece in pieces:
        for span in clip(ByteRange(position, position + len(piece)), spans):
            yield span.start, piece[span.start - position : span.end - position]


def most_spans(blob: Descriptor) -> int:
    """How many spans of this blob fit into one request."""
    return min(_MANY, (_RANGE_HEADER_BYTES - len("bytes=")) // (2 * len(str(blob.size)) + 2))


def _headers(blob: Descriptor, spans: Sequence[ByteRange]) -> dict[str, str]:
    """A whole blob is asked for without a range."""
    return {} if len(spans) == 1 and spans[0].size == blob.size else {"Range": range_header(spans)}


class RunMemory:
    """`HostMemory` without a store: forgotten at the end of the run."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def recall(self, host: str) -> int | None:
        return self._known.get(host)

    def learn(self, host: str, spans: int) -> None:
        self._known[host] = spans
