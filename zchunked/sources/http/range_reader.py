"""Ranged reads of blobs behind HTTP, for registries and static layouts alike: targets, habits of hosts, all answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from zchunked.errors import (
    AccessDeniedError,
    FormatError,
    MultiRangeRefusedError,
    RangeIgnoredError,
    TransferError,
    TransientError,
)
from zchunked.interfaces import HostMemory, Pieces
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, Spans, append_pieces, merge, range_header, subtract
from zchunked.sources.http.client import REDIRECTS, Answer
from zchunked.sources.http.content_coding import blob_of
from zchunked.sources.http.endpoint import TRIES, RegistryEndpoint
from zchunked.sources.http.multipart import PartReader
from zchunked.sources.http.network_errors import NoAnswerError
from zchunked.sources.http.range_response import REFUSED_SINGLE, Packed, Parts, clip, stated_size, understand
from zchunked.sources.http.single_flight import SingleFlight
from zchunked.sources.http.status_errors import is_page, page_error
from zchunked.sources.http.urls import netloc

_EXPIRED = frozenset({401, 403, 404, 410})  # how hosts of signed URLs say that the signature is too old
_RANGE_HEADER_BYTES = 4096  # what any server takes
_MANY = 185  # spans in one request, for hosts that take several: about 4 KiB; Apache httpd gives up beyond 200
_SMALL = (16, 64 << 10)  # bytes of an object that is good for a probe: a config
_TOO_MANY = frozenset({400, 413, 414, 431})

_Opened = tuple[Answer, ByteRange | Parts | Packed]


class Blobs:
    """The blobs of one home, read as `Source` promises. Thread-safe."""

    def __init__(
        self,
        home: RegistryEndpoint,
        path_of: Callable[[Digest], str],
        *,
        hosts: HostMemory | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`path_of`: where the home has a blob."""
        self._home, self._path_of, self._limits = home, path_of, limits
        self._hosts: HostMemory = hosts if hosts is not None else _Forgetful()
        self._lock = threading.Lock()
        self._targets: dict[Digest, str] = {}
        self._last_host = home.host
        self._foreign: set[str] = set()  # URLs that a manifest named, which get to see nothing
        self._flights: SingleFlight[str] = SingleFlight()

    def spans_per_request(self, blob: Descriptor) -> int:
        """1 for a host of which nothing is known; `read` may be asked for more all the same, to find out."""
        known = self._hosts.recall(self._host_of(blob))
        return 1 if known is None else min(known, most_spans(blob))

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """Several spans go into one request, unless the host is known to take one at a time.

        What a multi-range answer leaves out is asked for again here, one span after the other. Raises
        MultiRangeRefusedError before the first haul when the host takes no more than one; that is then known.
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
                for haul in self._read_one(blob, span):
                    has_begun = True
                    yield haul
            except RangeIgnoredError as error:
                if not has_begun:
                    raise
                raise TransientError(f"{error}, after other ranges were served") from error

    def _read_many(self, blob: Descriptor, spans: list[ByteRange]) -> Generator[Pieces, None, list[ByteRange]]:
        """As many spans in one request as the host takes; returns what did not come in this way."""
        left, most, has_begun = spans, most_spans(blob), False
        while len(left) > 1 and (self._hosts.recall(self._host_of(blob)) or _MANY) > 1:
            asked = left[: min(most, max(2, self._hosts.recall(self._host_of(blob)) or _MANY))]
            came: list[ByteRange] = []
            try:
                for haul in self._read_several(blob, asked):
                    append_pieces(came, haul)
                    has_begun = True
                    yield haul
            except MultiRangeRefusedError:
                if not has_begun:
                    raise
            missing = subtract(asked, merge(came))
            left = missing + left[len(asked) :]
            if missing:  # nothing at all counts too: a host that answers so is asked for one span at a time
                self._hosts.learn(self._host_of(blob), 1)
        return left

    def _may_probe(self, blob: Descriptor, spans: list[ByteRange]) -> bool:
        is_small = _SMALL[0] <= blob.size <= _SMALL[1] and spans == [ByteRange(0, blob.size)]
        return is_small and self._hosts.recall(self._host_of(blob)) is None

    def _read_one(self, blob: Descriptor, span: ByteRange) -> Iterator[Pieces]:
        at = None
        for haul in self._hauls(blob, [span]):
            for number, (position, piece) in enumerate(haul):
                if at is not None and position != at:
                    if number:
                        yield haul[:number]
                    raise TransientError(f"blob {short(blob.digest)}: one range is answered with parts out of order")
                at = position + len(piece)
            yield haul
        at = span.start if at is None else at
        if at < span.end:
            raise TransientError(f"blob {short(blob.digest)}: {span.end - at} bytes of {span} did not come")

    def _read_several(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """Bytes of the spans and no others, in the server's order; perhaps not all of them."""
        asked = Spans(spans)
        for haul in self._hauls(blob, spans):
            if all(asked.hold(position, position + len(piece)) for position, piece in haul):
                yield haul
            elif within := list(_clipped(haul, spans)):
                yield within

    def _hauls(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """What one request brings, and where in the blob it belongs."""
        answer, holds = self._open(blob, spans)
        with answer:
            if isinstance(holds, ByteRange):
                at = holds.start
                for piece in answer.pieces(holds.size):
                    if at == 0 and is_page(answer.headers, piece):
                        raise page_error(f"{self._home.name}: blob {short(blob.digest)} at {netloc(answer.url)}", piece)
                    yield [(at, piece)]
                    at += len(piece)
                return
            if isinstance(holds, Packed):
                yield from self._whole_small(answer, blob)
                return
            hull = ByteRange(spans[0].start, spans[-1].end)
            parts = PartReader(holds.boundary, blob.size, hull, len(spans), self._limits)
            host = netloc(answer.url)
            try:
                for piece in answer.pieces(parts.most_bytes):
                    framing = len(piece)
                    for haul in parts.feed(piece):
                        framing -= sum([len(content) for _, content in haul])
                        yield haul
                    self._home.http.traffic.framed(framing)
                parts.end()
            except FormatError as error:
                if not parts.is_cut_short:
                    self._hosts.learn(host, 1)
                raise TransientError(f"blob {short(blob.digest)}: {error}") from error
            if (self._hosts.recall(host) or 0) < 2:
                self._hosts.learn(host, _MANY)

    def _whole_small(self, answer: Answer, blob: Descriptor) -> Iterator[Pieces]:
        """A small blob that may have been packed on the way."""
        what = f"blob {short(blob.digest)}"
        data = answer.read(self._limits.manifest_bytes, what)
        found = blob_of(answer.headers, data, blob.digest, blob.size, what)[: blob.size]
        self._home.http.traffic.unpacked(max(0, len(found) - len(data)))
        if found:
            yield [(0, found)]

    # ── what `Locating` promises ──

    def size_of(self, digest: Digest) -> int | None:
        """Costs a request, and the first byte."""
        with self._glance(digest, follow=True) as answer:
            self._note(digest, answer.url)
            return stated_size(answer.status, answer.headers)

    def locate(self, digest: Digest) -> str:
        """Where the server redirects to, without going there, or its own URL."""
        with self._glance(digest, follow=False) as answer:
            location = answer.headers.get("Location")
            return (
                self._home.http.redirected(answer.url, location)
                if answer.status in REDIRECTS and location
                else answer.url
            )

    def _glance(self, digest: Digest, *, follow: bool) -> Answer:
        """An answer that shows that the blob is there, with as little of it as the host can send; or a redirect."""
        path = self._path_of(digest)
        answer = self._home.ask(path, {"Range": "bytes=0-0"}, follow=follow)
        if answer.status in REFUSED_SINGLE and stated_size(answer.status, answer.headers) is None:
            answer.excerpt()
            answer = self._home.ask(path, {}, follow=follow)
        is_redirect = answer.status in REDIRECTS and "Location" in answer.headers
        if not is_redirect and answer.status not in (200, 206) and stated_size(answer.status, answer.headers) is None:
            raise answer.refusal(f"{self._home.name}: blob {digest}")
        if answer.status != 200:
            answer.excerpt()  # a short body is read, for it costs nothing and keeps the connection
        return answer

    # ── finding the bytes ──

    def _open(self, blob: Descriptor, spans: Sequence[ByteRange]) -> _Opened:
        """An answer whose body holds what was asked for.

        The server is asked where a blob is by one thread, once; the others wait for that and go there directly.
        """
        for turn in range(TRIES):
            is_last = turn == TRIES - 1
            with self._lock:
                target = None if is_last else self._targets.get(blob.digest)
            if target is None:
                own: list[_Opened] = []
                resolve = partial(self._resolve, blob, spans, own)
                target = resolve() if is_last else self._flights.run(blob.digest, resolve)
                if own:
                    return own[0]
            answer = self._ask_directly(target, _headers(blob, spans), blob.digest)
            if answer.status not in _EXPIRED or self._is_at_home(target):
                return self._settled(answer, blob, spans)
            answer.excerpt()
            self._forget(blob.digest, target)
        raise AccessDeniedError(f"{self._home.name}: the host of blob {short(blob.digest)} refuses every new URL")

    def _resolve(self, blob: Descriptor, spans: Sequence[ByteRange], own: list[_Opened]) -> str:
        """Where the server sends us for this blob. The answer from there goes into `own`: it is the caller's."""
        answer = self._home.ask(self._path_of(blob.digest), _headers(blob, spans))
        if answer.status == 404 and blob.urls:
            answer = self._ask_elsewhere(answer, blob, _headers(blob, spans))
        try:
            own.append(self._settled(answer, blob, spans))
        except (RangeIgnoredError, MultiRangeRefusedError):
            self._note(blob.digest, answer.url)  # the bytes are there, only not in this way
            raise
        self._note(blob.digest, answer.url)
        return answer.url

    def _settled(self, answer: Answer, blob: Descriptor, spans: Sequence[ByteRange]) -> _Opened:
        """An answer that `_checked` has passed. A host may refuse ranges with 403 and send the whole blob."""
        if answer.status == 403 and _headers(blob, spans):
            denied = answer.refusal(f"{self._home.name}: blob {short(blob.digest)} at {netloc(answer.url)}")
            answer = self._ask_directly(answer.url, {}, blob.digest)
            if answer.status != 200:
                answer.excerpt()
                raise denied
        return answer, self._checked(answer, blob, spans)

    def _checked(self, answer: Answer, blob: Descriptor, spans: Sequence[ByteRange]) -> ByteRange | Parts | Packed:
        """Raises, and closes the answer, unless its body holds bytes of the spans. Learns what the host can do."""
        host = netloc(answer.url)
        if answer.status == 200 and answer.length not in (None, blob.size) and is_page(answer.headers, b"<"):
            page = answer.excerpt()
            raise page_error(f"{self._home.name}: blob {short(blob.digest)} at {host}", page)
        try:
            holds = understand(answer.status, answer.headers, blob, spans, self._limits)
        except RangeIgnoredError:
            self._hosts.learn(host, 0)
            self._dismiss(answer, blob)
            raise
        except MultiRangeRefusedError:
            # One that has taken several may find these too many; others mean that one is the most they take.
            is_too_many = answer.status in _TOO_MANY and (self._hosts.recall(host) or 0) > 1
            self._hosts.learn(host, max(1, len(spans) // 2) if is_too_many else 1)
            self._dismiss(answer, blob)
            raise
        except BaseException:
            answer.close()
            raise
        if holds is None:
            raise answer.refusal(f"{self._home.name}: blob {short(blob.digest)} at {host}")
        is_unasked = isinstance(holds, ByteRange) and holds.size == blob.size and list(spans) != [holds]
        if is_unasked and answer.status == 200:
            self._hosts.learn(host, 0)
        if answer.status == 206 and self._hosts.recall(host) == 0:
            self._hosts.learn(host, 1)
        return holds

    def _dismiss(self, answer: Answer, blob: Descriptor) -> None:
        """What is short is read, for it was sent already, and that keeps the connection; a large blob is not."""
        if answer.status >= 400 or blob.size <= self._limits.error_body_bytes:
            answer.excerpt()
        answer.close()

    def _note(self, digest: Digest, target: str) -> None:
        with self._lock:
            self._targets[digest] = target
            self._last_host = netloc(target)

    def _host_of(self, blob: Descriptor) -> str:
        """Where its bytes come from, as far as is known now."""
        with self._lock:
            target = self._targets.get(blob.digest)
            return netloc(target) if target else self._last_host

    def _forget(self, digest: Digest, target: str) -> None:
        with self._lock:
            if self._targets.get(digest) == target:
                del self._targets[digest]

    def _ask_elsewhere(self, answer: Answer, blob: Descriptor, headers: Mapping[str, str]) -> Answer:
        """The first of the blob's own URLs that has it, asked without credentials; else the last answer."""
        failure: TransferError | None = None
        for url in blob.urls:
            answer.excerpt()
            try:
                answer, failure = self._home.http.get(url, headers), None
            except TransferError as error:
                failure = error
                continue
            with self._lock:
                self._foreign.add(answer.url)
            if answer.status not in _EXPIRED and (answer.status < 500 or answer.status == 501):
                break
        if failure is not None:
            raise failure
        return answer

    def _is_at_home(self, url: str) -> bool:
        return url not in self._foreign and self._home.has(url)

    def _ask_directly(self, target: str, headers: Mapping[str, str], digest: Digest) -> Answer:
        if self._is_at_home(target):
            return self._home.ask_url(target, headers)
        try:
            return self._home.http.get(target, headers)
        except NoAnswerError:
            self._forget(digest, target)  # the server may know a host that lives
            raise


def _clipped(haul: Pieces, spans: Sequence[ByteRange]) -> Iterator[tuple[int, bytes | memoryview]]:
    for position, piece in haul:
        for span in clip(ByteRange(position, position + len(piece)), spans):
            yield span.start, piece[span.start - position : span.end - position]


def most_spans(blob: Descriptor) -> int:
    """How many spans of this blob fit into one request."""
    return min(_MANY, (_RANGE_HEADER_BYTES - len("bytes=")) // (2 * len(str(blob.size)) + 2))


def _headers(blob: Descriptor, spans: Sequence[ByteRange]) -> dict[str, str]:
    """A whole blob is asked for without a range."""
    return {} if len(spans) == 1 and spans[0].size == blob.size else {"Range": range_header(spans)}


class _Forgetful:
    """The memory of someone who keeps no store."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def recall(self, host: str) -> int | None:
        return self._known.get(host)

    def learn(self, host: str, spans: int) -> None:
        self._known[host] = spans
