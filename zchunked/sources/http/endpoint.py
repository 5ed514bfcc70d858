"""The server that a reference names: scheme, paths, authorization; redirects lead away."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial

from msgspec import Struct

from zchunked.errors import AccessDeniedError
from zchunked.interfaces import Emit
from zchunked.sources.auth.tokens import Auth
from zchunked.sources.http.client import Body, Http
from zchunked.sources.http.errors.network_errors import NoAnswerError, NoTlsError
from zchunked.sources.http.locations.urls import origin
from zchunked.sources.http.response import HttpResponse

TRIES = 3  # another thread's renewal may be used up before this request; its own is final


class ServerAddress(Struct, frozen=True):
    """Where a server's paths are.

    `name` is what messages call it; `host` as `host[:port]`; all paths are below `folder`, which
    begins with a slash or is empty. `scheme` None: https, and http if it `may_be_plain`.
    """

    name: str
    host: str
    folder: str
    scheme: str | None = None
    may_be_plain: bool = False


class RegistryEndpoint:
    """One server: requests carry its authorization, and its refusals renew that. Thread-safe."""

    def __init__(self, http: Http, auth: Auth, address: ServerAddress) -> None:
        """The endpoint's owner closes `http`."""
        self.http, self.name, self.host = http, address.name, address.host
        self._auth, self._folder = auth, address.folder
        self._scheme, self._may_be_plain = address.scheme, address.may_be_plain
        self._lock = threading.Lock()

    def set_listener(self, emit: Emit) -> None:
        """Send warnings about credentials to `emit` from now on."""
        self._auth.emit = emit

    def has(self, url: str) -> bool:
        """Whether this URL is one of the server's own, as far as is known now."""
        return self._scheme is not None and origin(url) == origin(f"{self._scheme}://{self.host}")

    def ask(
        self,
        path: str,
        headers: Mapping[str, str],
        *,
        follow: bool = True,
        method: str = "GET",
        body: Body | None = None,
    ) -> HttpResponse:
        """A path below the folder, redirects of a GET followed unless told otherwise."""
        ask = partial(self.ask_url, headers=headers, follow=follow, method=method, body=body)
        if self._scheme is not None:
            return ask(self._url(self._scheme, path))
        try:
            return ask(self._url("https", path))
        except (NoAnswerError, NoTlsError):
            if not self._may_be_plain:
                raise
            return ask(self._url("http", path))

    def _url(self, scheme: str, path: str) -> str:
        return f"{scheme}://{self.host}{self._folder}/{path}"

    def ask_url(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        follow: bool = True,
        method: str = "GET",
        body: Body | None = None,
        answer_seconds: float | None = None,
    ) -> HttpResponse:
        """Request with authorization. If an old one is refused, it is renewed once."""
        for turn in range(TRIES):
            grant = self._auth.grant(is_last=turn == TRIES - 1)
            if follow and method == "GET":
                answer = self.http.get(url, headers, authorization=grant.header)
            else:
                answer = self.http.send(
                    url,
                    headers,
                    authorization=grant.header,
                    method=method,
                    body=body,
                    answer_seconds=answer_seconds,
                )
            with self._lock:
                # it answered: keep this scheme from now on
                self._scheme = self._scheme or origin(url)[0]
            if origin(answer.url) != origin(url) or not self._auth.asks(answer):
                return answer
            self._auth.learn(answer, grant)
        raise AccessDeniedError(f"{self.name}: refused, although with a new token each time")
