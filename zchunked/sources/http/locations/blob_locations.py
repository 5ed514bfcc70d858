"""Where a blob's bytes are: at the server, or where it redirects to, until that URL expires."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from zchunked.errors import TransferError
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.sources.http.client import REDIRECTS
from zchunked.sources.http.endpoint import RegistryEndpoint
from zchunked.sources.http.errors.network_errors import NoAnswerError
from zchunked.sources.http.locations.urls import netloc
from zchunked.sources.http.ranges.range_response import REFUSED_SINGLE, stated_size
from zchunked.sources.http.response import HttpResponse
from zchunked.sources.http.single_flight import SingleFlight

# how hosts of signed URLs say that the signature is too old
_EXPIRED = frozenset({401, 403, 404, 410})


class BlobLocations:
    """What is known of where the blobs of one server are, and requests to there. Thread-safe."""

    def __init__(self, server: RegistryEndpoint, path_of: Callable[[Digest], str]) -> None:
        """`path_of`: where the server has a blob."""
        self._server, self._path_of = server, path_of
        self._lock = threading.Lock()
        self._targets: dict[Digest, str] = {}
        self._last_host = server.host
        self._foreign: set[str] = set()  # URLs that a manifest named: no credentials for them
        self._lookups: SingleFlight[str] = SingleFlight()

    # ── what `Locating` promises ──

    def size_of(self, digest: Digest) -> int | None:
        """Costs a request, and the first byte."""
        with self._glance(digest, follow=True) as response:
            self.note(digest, response.url)
            return stated_size(response.status, response.headers)

    def locate(self, digest: Digest) -> str:
        """Where the server redirects to, without going there, or its own URL."""
        with self._glance(digest, follow=False) as response:
            location = response.headers.get("Location")
            if response.status in REDIRECTS and location:
                return self._server.http.redirected(response.url, location)
            return response.url

    def _glance(self, digest: Digest, *, follow: bool) -> HttpResponse:
        """A response that shows that the blob exists, as short as the host can; or a redirect."""
        path = self._path_of(digest)
        response = self._server.ask(path, {"Range": "bytes=0-0"}, follow=follow)
        size = stated_size(response.status, response.headers)
        if response.status in REFUSED_SINGLE and size is None:
            response.excerpt()
            response = self._server.ask(path, {}, follow=follow)
            size = stated_size(response.status, response.headers)
        is_redirect = response.status in REDIRECTS and "Location" in response.headers
        if not is_redirect and response.status not in (200, 206) and size is None:
            raise response.status_error(f"{self._server.name}: blob {digest}")
        if response.status != 200:
            # a short body is read, for it costs nothing and keeps the connection
            response.excerpt()
        return response

    # ── what is known ──

    def host_of(self, blob: Descriptor) -> str:
        """The host of its bytes, as far as is known now."""
        with self._lock:
            target = self._targets.get(blob.digest)
            return netloc(target) if target else self._last_host

    def known(self, digest: Digest) -> str | None:
        """The URL that had the blob last; None before any, and once its signature expired."""
        with self._lock:
            return self._targets.get(digest)

    def found(self, digest: Digest, look: Callable[[], str]) -> str:
        """The URL by `look`, which asks the server: in one thread, for all that wait."""
        return self._lookups.run(digest, look)

    def note(self, digest: Digest, target: str) -> None:
        with self._lock:
            self._targets[digest] = target
            self._last_host = netloc(target)

    def forget(self, digest: Digest, target: str) -> None:
        with self._lock:
            if self._targets.get(digest) == target:
                del self._targets[digest]

    # ── requests ──

    def ask_server(self, blob: Descriptor, headers: Mapping[str, str]) -> HttpResponse:
        """Request a blob by way of the server, or, where it has none, at the blob's own URLs."""
        response = self._server.ask(self._path_of(blob.digest), headers)
        if response.status == 404 and blob.urls:
            return self._ask_elsewhere(response, blob, headers)
        return response

    def ask(self, target: str, headers: Mapping[str, str], digest: Digest) -> HttpResponse:
        """Request by a known URL, with credentials only for the server itself."""
        if self._is_server(target):
            return self._server.ask_url(target, headers)
        try:
            return self._server.http.get(target, headers)
        except NoAnswerError:
            self.forget(digest, target)  # the server may know a host that lives
            raise

    def has_expired(self, response: HttpResponse, target: str, digest: Digest) -> bool:
        """Whether this response means: ask the server for a new URL.

        It may redirect to itself, and such a URL expires as one of another host does.
        """
        if response.status not in _EXPIRED:
            return False
        place = urlsplit(target)
        is_own = place.path.endswith("/" + self._path_of(digest)) and not place.query
        return not (is_own and self._is_server(target))

    def _is_server(self, url: str) -> bool:
        return url not in self._foreign and self._server.has(url)

    def _ask_elsewhere(
        self, response: HttpResponse, blob: Descriptor, headers: Mapping[str, str]
    ) -> HttpResponse:
        """The first of its own URLs' responses that has it, without credentials, or the last."""
        failure: TransferError | None = None
        for url in blob.urls:
            response.excerpt()
            try:
                response, failure = self._server.http.get(url, headers), None
            except TransferError as error:
                failure = error
                continue
            with self._lock:
                self._foreign.add(response.url)
            is_server_fault = response.status >= 500 and response.status != 501
            if response.status not in _EXPIRED and not is_server_fault:
                break
        if failure is not None:
            raise failure
        return response
