"""What a server was asked and what it sent, to the byte."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["ping", "token", "manifest", "config", "toc", "blob", "redirect", "tags", "other"]
"""`toc`: a range that reaches into a layer's indexes; `redirect`: a blob request redirected."""

Span = tuple[int, int]
"""Half-open."""


@dataclass
class Request:
    """One request and what became of it."""

    ordinal: int
    """From 1, over all hosts."""
    host: Literal["registry", "cdn"]
    method: str
    path: str
    kind: Kind
    digest: str | None
    """Of the document or blob asked for; None where a tag or nothing was."""
    range: str | None
    authorized: bool
    """An Authorization header came with it, good or bad."""
    status: int | None = None
    """None when no answer was begun."""
    body_bytes: int = 0
    """Body bytes given to the socket. A chunked body counts without its framing."""
    spans: list[Span] = field(default_factory=list)
    """The parts of the blob among them."""


class Accounts:
    """All requests of a server, in order of arrival, recorded before a client can see a byte."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._body_bytes = 0
        self.connections = 0

    def open(self, request: Request) -> Request:
        """Enter a request under the next ordinal."""
        with self._lock:
            request.ordinal = len(self._requests) + 1
            self._requests.append(request)
            return request

    def connected(self) -> None:
        with self._lock:
            self.connections += 1

    def answered(self, request: Request, status: int) -> None:
        with self._lock:
            request.status = status

    def sent(self, request: Request, size: int, at: int | None) -> None:
        """Enter body bytes; `at` is their offset in the blob, if they are part of one."""
        with self._lock:
            request.body_bytes += size
            self._body_bytes += size
            if at is not None and size:
                start = (
                    request.spans.pop()[0] if request.spans and request.spans[-1][1] == at else at
                )
                request.spans.append((start, at + size))

    def unsent(self, request: Request, size: int, at: int | None) -> None:
        """Take back the last bytes entered: the socket did not take them."""
        with self._lock:
            request.body_bytes -= size
            self._body_bytes -= size
            if at is not None and size:
                start, end = request.spans.pop()
                if start < end - size:
                    request.spans.append((start, end - size))

    @property
    def requests(self) -> list[Request]:
        """A copy of how things stand."""
        with self._lock:
            return [replace(request, spans=list(request.spans)) for request in self._requests]

    def count(self, kind: Kind | None = None, *, status: int | None = None) -> int:
        """How many requests of this kind, or all, were answered so."""
        return sum(
            (kind is None or request.kind == kind) and (status is None or request.status == status)
            for request in self.requests
        )

    @property
    def body_bytes(self) -> int:
        """All bodies, also of errors, tokens and redirects, with the headers of parts."""
        return self._body_bytes

    @property
    def blob_bytes(self) -> int:
        """Bytes of configs and layers, each as often as it was sent."""
        return sum(end - start for spans in self.bytes_by_blob.values() for start, end in spans)

    @property
    def bytes_by_blob(self) -> dict[str, list[Span]]:
        """What was sent of each blob, in order of request."""
        found: dict[str, list[Span]] = {}
        for request in self.requests:
            if request.digest and request.spans and request.kind != "manifest":
                found.setdefault(request.digest, []).extend(request.spans)
        return found

    def sent_twice(self, digest: str | None = None) -> int:
        """Bytes sent although they had been sent before, of this blob or of all."""
        blobs = self.bytes_by_blob
        chosen = blobs.values() if digest is None else [blobs.get(digest, [])]
        return sum(sum(end - start for start, end in spans) - covered(spans) for spans in chosen)

    @property
    def cdn_saw_authorization(self) -> bool:
        return any(request.host == "cdn" and request.authorized for request in self.requests)


def covered(spans: Iterable[Span]) -> int:
    """How many bytes lie in at least one of the spans."""
    total = reach = 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reach))
        reach = max(reach, end)
    return total
