"""The server that a reference names: its scheme, its paths, what it wants to see. Redirects lead away from it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from zchunked.errors import AccessDeniedError
from zchunked.interfaces import Emit
from zchunked.sources.auth.tokens import Auth
from zchunked.sources.http.client import Answer, Http
from zchunked.sources.http.network_errors import NoAnswerError, NoTlsError
from zchunked.sources.http.urls import origin

TRIES = 3  # somebody else's renewal may be used up before our turn; our own is final


class RegistryEndpoint:
    """Thread-safe. `name` is what messages call it; `host` as `host[:port]`."""

    def __init__(
        self, http: Http, auth: Auth, name: str, host: str, folder: str, *, scheme: str | None, may_be_plain: bool
    ) -> None:
        """`folder`: where all paths are, with a slash in front. `scheme` None: https, and http if it `may_be_plain`."""
        self.http, self.name, self.host = http, name, host
        self._auth, self._folder = auth, folder
        self._scheme, self._may_be_plain = scheme, may_be_plain
        self._lock = threading.Lock()

    def hear(self, emit: Emit) -> None:
        """Where warnings about credentials go from now on."""
        self._auth.emit = emit

    def has(self, url: str) -> bool:
        """Whether this URL is one of the server's own, as far as is known now."""
        return self._scheme is not None and origin(url) == origin(f"{self._scheme}://{self.host}")

    def ask(self, path: str, headers: Mapping[str, str], *, follow: bool = True) -> Answer:
        """A path below the folder, redirects followed unless told otherwise."""
        if self._scheme is not None:
            return self.ask_url(self._url(self._scheme, path), headers, follow=follow)
        try:
            answer = self.ask_url(self._url("https", path), headers, follow=follow)
        except (NoAnswerError, NoTlsError):
            if not self._may_be_plain:
                raise
            answer = self.ask_url(self._url("http", path), headers, follow=follow)
        return answer

    def _url(self, scheme: str, path: str) -> str:
        return f"{scheme}://{self.host}{self._folder}/{path}"

    def ask_url(self, url: str, headers: Mapping[str, str], *, follow: bool = True) -> Answer:
        """With what the server wants to see. A refusal of what is not fresh is followed by a renewal."""
        for turn in range(TRIES):
            grant = self._auth.grant(is_last=turn == TRIES - 1)
            ask = self.http.get if follow else self.http.send
            answer = ask(url, headers, authorization=grant.header)
            with self._lock:
                self._scheme = self._scheme or origin(url)[0]  # it has answered: no more doubt, and no way back
            if origin(answer.url) != origin(url) or not self._auth.asks(answer):
                return answer
            self._auth.learn(answer, grant)
        raise AccessDeniedError(f"{self.name}: refused, although with a new token each time")
