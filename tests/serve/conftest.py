"""A server on loopback over the loopback registry, and a client that looks at every header."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.servers.registry import Registry
from zchunked.oci.platform import Platform
from zchunked.oci.reference import Reference
from zchunked.options import Options, Patience
from zchunked.pull.origin import Origin
from zchunked.results import Access
from zchunked.serve.api.policy import Allowed
from zchunked.serve.settings import Settings
from zchunked.serve.wiring import serving
from zchunked.sources import open_source
from zchunked.sources.network import Network
from zchunked.sources.offline import OfflineSource
from zchunked.sources.traffic import Traffic
from zchunked.store import Store

PATIENCE = 20.0  # seconds: on a busy machine a second may go by between two tries


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Served:
    """A server in this process."""

    port: int
    store: Store
    access: list[Access] = field(default_factory=list)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """One request; a body that breaks off raises http.client.IncompleteRead."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                method,
                path,
                headers={name.replace("_", "-"): value for name, value in headers.items()},
            )
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


@dataclass
class Start:
    """Starts servers; all end with the test."""

    folder: Path
    stack: ExitStack

    def __call__(
        self, registry: Registry | None, *, patience: float = PATIENCE, **settings: Any
    ) -> Served:
        store = self.stack.enter_context(Store(self.folder / f"store{settings.pop('store', '')}"))
        upstreams = {"local": registry.host} if registry is not None else {}
        wanted = replace(
            Settings(("127.0.0.1", 0), allowed=Allowed(frozenset()), upstreams=upstreams),
            **settings,
        )

        def opened(reference: Reference) -> Origin:
            traffic = Traffic(time.monotonic)
            if wanted.offline:
                return Origin(reference, OfflineSource(str(reference)), traffic)
            source = open_source(reference, Network(traffic), hosts=store, documents=store.document)
            return Origin(reference, source, traffic)

        options = Options(Platform("", ""), patience=Patience(patience))
        access: list[Access] = []
        server = self.stack.enter_context(
            serving(wanted, store, opened, options, access=access.append, log=lambda _: None)
        )
        _, port = server.open()
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        self.stack.callback(thread.join, 10)
        self.stack.callback(server.stop)
        return Served(port, store, access)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield Start(tmp_path, stack)


def until(check: Any, seconds: float = 20.0) -> None:
    """Wait for something that is about to happen."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)
