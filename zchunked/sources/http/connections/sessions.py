"""Keep connections open between requests: a pool of `requests` sessions with deadlines."""

from __future__ import annotations

import socket
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection
from urllib3.exceptions import InsecureRequestWarning

from zchunked.sources.http.connections.connection import POOLS
from zchunked.sources.http.connections.tls import Contexts, Trust
from zchunked.sources.http.locations.urls import Origin, netloc
from zchunked.sources.shared_link import IdleConnections

SENT_AT_ONCE = 64 << 10  # a send must be through within the time of a connect
# linux/tcp.h; Python knows it since 3.12
_NOT_SENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


class SessionPool:
    """Sessions by origin; each serves one request at a time, in any thread. Thread-safe."""

    def __init__(self, trust: Trust | None = None, shared: IdleConnections | None = None) -> None:
        """None trusts as the system does. `shared`: where idle sessions of all pools are kept."""
        trust = self._trust = trust or Trust()
        self.verifies = trust.verify
        """Whether certificates are checked at all."""
        if not trust.verify:
            urllib3.disable_warnings(InsecureRequestWarning)  # the person has said so
        self._contexts = Contexts(trust, DEFAULT_CA_BUNDLE_PATH)
        self._own = IdleConnections()
        self._idle = shared or self._own

    def take(self, origin: Origin) -> requests.Session:
        """An idle session, or a new one; the caller puts it back or closes it."""
        idle = self._idle.take((self._trust, origin))
        if isinstance(idle, requests.Session):
            return idle
        session = _Session()
        session.trust_env = False  # it would read ~/.netrc; proxies and CA bundles come from us
        session.headers.clear()
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        session.mount(f"{origin[0]}://", _Adapter(self._contexts))
        return session

    def put_back(self, origin: Origin, session: requests.Session) -> None:
        """Keep a session for the next request; close it if the pool is closed."""
        self._idle.put((self._trust, origin), session)

    def close(self) -> None:
        """Close idle sessions, unless they are shared; busy ones close when they are put back."""
        self._own.close()


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None.

        Otherwise requests reads the whole body of a redirect even when told not to follow it.
        """


class _Adapter(HTTPAdapter):
    """One connection, kept open, with the SSL context that its host deserves."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # What is sent and not yet on its way is lost with its connection, and there may be
        # megabytes of it.
        options = [
            *HTTPConnection.default_socket_options,
            (socket.IPPROTO_TCP, _NOT_SENT_LOWAT, SENT_AT_ONCE),
        ]
        super().init_poolmanager(*args, socket_options=options, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing: the context has it all.

        Otherwise each connection would parse CA certificates again.
        """

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._contexts.of(netloc(request.url))} if host[
            "scheme"
        ] == "https" else {}
