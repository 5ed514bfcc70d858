"""WSGI application of the registry: pull and content discovery of the OCI distribution-spec 1.1."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qs

from zchunked.errors import LocalError, ZPullError
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange
from zchunked.results import Access
from zchunked.serve.api.answers import (
    DIGEST,
    Headers,
    Response,
    asked_digest,
    failed,
    json_answer,
    manifest_answer,
    problem,
    text_answer,
)
from zchunked.serve.api.byte_ranges import (
    Multipart,
    UnsatisfiableError,
    Wanted,
    content_range,
    parse_range,
)
from zchunked.serve.api.documents import ServedManifest
from zchunked.serve.api.names import Asked, parse_path
from zchunked.serve.api.policy import Allowed, Clients
from zchunked.serve.api.streams import Blob

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
_API = ("Docker-Distribution-Api-Version", "registry/2.0")
AccessLog = Callable[[Access], None]
"""Takes each request that was answered."""


class Manifests(Protocol):
    """The manifests that the application serves."""

    def manifest(self, asked: Asked) -> ServedManifest:
        """Raises NotFoundError, AccessDeniedError, TransferError."""


class Blobs(Protocol):
    """The blobs that the application serves."""

    def learn(self, name: str, what: str, digest: Digest, data: bytes, *, is_wanted: bool) -> None:
        """Note a served manifest.

        `what`: the tag or digest in the request; `is_wanted`: not only its head.
        """

    def blob(self, name: str, digest: Digest, *, is_wanted: bool) -> Blob:
        """A blob. `is_wanted`: its bytes, not only its size.

        NotFoundError, and what the upstream raises.
        """

    def part(self, name: str, blob: Blob, spans: Sequence[ByteRange]) -> Blob:
        """The blob that `blob` returned, with these spans wanted. Raises as `blob` does."""


class Counters(Protocol):
    """What the application counts its answers by."""

    def answered(self, method: str, status: int) -> None: ...

    def sent_to_client(self, size: int) -> None:
        """Body bytes."""


class Uncounted:
    """Counts nothing."""

    def answered(self, method: str, status: int) -> None:
        pass

    def sent_to_client(self, size: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Services:
    """What the application answers from. `pages`: by path, their media type and content."""

    documents: Manifests
    flights: Blobs
    pages: Mapping[str, tuple[str, Callable[[], bytes]]]
    passed: Callable[[Asked, str], Response]
    """Tags and referrers, as the upstream answers them."""
    counters: Counters = field(default_factory=Uncounted)


class Lease(Protocol):
    """Counts the requests that use the store: without any, the server closes it."""

    def use(self) -> AbstractContextManager[None]:
        """Keep the store open in the block. LocalError where it cannot be opened any more."""

    def check(self) -> None:
        """Raises LocalError where the store cannot be opened. No use: it rests as before."""


class _Open:
    """A store that stays open."""

    def use(self) -> AbstractContextManager[None]:
        return nullcontext()

    def check(self) -> None:
        pass


@dataclass(slots=True)
class App:
    """The application. Thread-safe. An unfinished body ends the connection."""

    services: Services
    allowed: Allowed
    clients: Clients = field(default_factory=Clients)
    upstreams: dict[str, str] = field(default_factory=dict)
    log: AccessLog = lambda _: None
    lease: Lease = field(default_factory=_Open)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        began, method = time.time(), str(environ["REQUEST_METHOD"])
        path = str(environ.get("PATH_INFO", ""))
        error, uses = "", ExitStack()
        try:
            response = self._answer(method, path, environ, uses)
        except ZPullError as failure:
            response, error = failed(failure, is_blob="/blobs/" in path), str(failure)
        except Exception as fault:  # noqa: BLE001 - a fault of ours: the client gets the spec's form
            error = f"{type(fault).__name__} in the server: {fault}"
            response = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "UNKNOWN", error)
        self.services.counters.answered(method, response.status)
        headers = [_API, *response.headers, ("Content-Length", str(response.length))]
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)

        def done(sent: int, why: str) -> None:
            uses.close()
            self.services.counters.sent_to_client(sent)
            seconds = round(time.time() - began, 3)
            client = str(environ.get("REMOTE_ADDR", ""))
            agent = str(environ.get("HTTP_USER_AGENT", ""))
            self.log(
                Access(
                    began,
                    client,
                    method,
                    path[:500],
                    response.status,
                    sent,
                    seconds,
                    agent[:200],
                    why,
                )
            )

        if method == "HEAD":
            done(0, error)
            return []
        return _Body(response.body, done, error)

    def _answer(self, method: str, path: str, environ: Environ, uses: ExitStack) -> Response:
        """`uses`: is left when the last byte was sent."""
        if path == "/healthz":
            return text_answer(HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            return self._readiness()
        if not self.clients.admits(environ.get("HTTP_AUTHORIZATION")):
            answer = problem(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED", "this server wants its token")
            answer.headers.append(("WWW-Authenticate", 'Basic realm="zpull"'))
            return answer
        if method not in ("GET", "HEAD"):
            answer = problem(
                HTTPStatus.METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry is read-only"
            )
            answer.headers.append(("Allow", "GET, HEAD"))
            return answer
        if path in self.services.pages:
            return _page(*self.services.pages[path])
        if path in ("/v2", "/v2/"):
            return json_answer(HTTPStatus.OK, {})
        uses.enter_context(self.lease.use())
        return self._api(
            method, path, str(environ.get("QUERY_STRING", "")), environ.get("HTTP_RANGE")
        )

    def _readiness(self) -> Response:
        try:
            self.lease.check()
        except LocalError as error:
            return text_answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
        return text_answer(HTTPStatus.OK, "true\n")

    def _api(self, method: str, path: str, query: str, ranges: str | None) -> Response:
        namespace = parse_qs(query).get("ns", [""])[0]
        asked = parse_path(path, namespace, self.upstreams)
        if asked is None:
            return problem(
                HTTPStatus.NOT_FOUND,
                "UNSUPPORTED",
                "no such path in the pull part of the distribution API",
            )
        if asked.host not in self.upstreams.values():
            self.allowed.check(asked.host, asked.repository)
        is_get = method == "GET"
        if asked.kind == "manifests":
            found = self.services.documents.manifest(asked)
            self.services.flights.learn(
                asked.name, asked.what, found.digest, found.data, is_wanted=is_get
            )
            return manifest_answer(found)
        if asked.kind == "blobs":
            digest, is_part = asked_digest(asked.what), is_get and ranges is not None
            blob = self.services.flights.blob(asked.name, digest, is_wanted=is_get and not is_part)
            return self._blob(asked.name, blob, ranges if is_get else None)
        return self.services.passed(asked, query)

    def _blob(self, name: str, blob: Blob, ranges: str | None) -> Response:
        headers: Headers = [
            ("Content-Type", "application/octet-stream"),
            (DIGEST, blob.digest),
            ("Etag", f'"{blob.digest}"'),
            ("Accept-Ranges", "bytes"),
        ]
        try:
            wanted = parse_range(ranges, blob.size)
        except UnsatisfiableError:
            answer = problem(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                "RANGE_INVALID",
                "no such bytes in the blob",
            )
            answer.headers.append(("Content-Range", f"bytes */{blob.size}"))
            return answer
        if wanted is None:
            if ranges is not None:
                blob = self.services.flights.blob(name, blob.digest, is_wanted=True)
            whole = blob.stream(ByteRange(0, blob.size), is_held=True) if blob.size else []
            return Response(HTTPStatus.OK, headers, whole, blob.size)
        return self._partial(self.services.flights.part(name, blob, wanted.spans), wanted, headers)

    def _partial(self, blob: Blob, wanted: Wanted, headers: Headers) -> Response:
        if len(wanted.spans) == 1:
            (span,) = wanted.spans
            headers.append(("Content-Range", content_range(span, blob.size)))
            body: Iterable[bytes] = blob.stream(span, is_held=wanted.is_to_end)
            body = body if wanted.is_to_end else blob.first(body)
            return Response(HTTPStatus.PARTIAL_CONTENT, headers, body, span.size)
        parts = Multipart(wanted.spans, blob.size, secrets.token_hex(16))
        headers[0] = ("Content-Type", parts.content_type)
        body = blob.first(parts.body(lambda span: blob.stream(span, is_held=False)))
        return Response(HTTPStatus.PARTIAL_CONTENT, headers, body, parts.length)


def _page(media_type: str, content: Callable[[], bytes]) -> Response:
    data = content()
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    headers = [("Content-Type", media_type), ("Content-Security-Policy", policy)]
    return Response(HTTPStatus.OK, headers, [data], len(data))


class _Body:
    """A body that is counted as it is sent, and reported when it ends, however it ends."""

    def __init__(
        self, pieces: Iterable[bytes], done: Callable[[int, str], None], error: str
    ) -> None:
        self._pieces, self._done, self._error = iter(pieces), done, error
        self._sent = 0
        self._has_reported = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = next(self._pieces)
        except StopIteration:
            raise
        except ZPullError as error:
            self._error = str(error)
            raise BrokenBodyError(self._error) from error
        self._sent += len(piece)
        return piece

    def close(self) -> None:
        """The server calls it when the answer has been sent, or the client has left."""
        if not self._has_reported:
            self._has_reported = True
            if callable(close := getattr(self._pieces, "close", None)):
                close()
            self._done(self._sent, self._error)


class BrokenBodyError(Exception):
    """A body cannot be finished: the connection has to end before its length is reached."""
