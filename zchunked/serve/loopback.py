"""A temporary registry on loopback with one image, for engines of this machine to pull from."""

from __future__ import annotations

import threading
from typing import Self

from zchunked.download.workers import WorkerPool
from zchunked.errors import NotFoundError
from zchunked.export.engines.engine_commands import TRANSFER, Offer
from zchunked.serve.api.answers import Response
from zchunked.serve.api.names import Asked
from zchunked.serve.api.one_image import Everything, OneImage
from zchunked.serve.app import App, Services
from zchunked.serve.server import Server
from zchunked.store import Store

_THREADS = 16
_LOOK_SECONDS = 0.01  # each command that gives an image to an engine ends that late


class LoopbackRegistry:
    """A context manager. Open before its image is known, so that engines start meanwhile."""

    def __init__(self, store: Store) -> None:
        self._holds = OneImage(store)
        self.give = self._holds.give
        services = Services(self._holds, self._holds, pages={}, passed=_no_list)
        app = App(services, Everything(frozenset()))
        self._server = Server(
            app,
            ("127.0.0.1", 0),
            certificate=None,
            log=lambda _: None,
            threads=_THREADS,
            look_seconds=_LOOK_SECONDS,
        )
        self._workers = WorkerPool({"serve": 1}, threading.Event())

    def __enter__(self) -> Self:
        """Raises LocalError where it cannot listen."""
        address = "{}:{}".format(*self._server.open())
        self.offer = Offer(address, f"{TRANSFER}/{self._holds.secret}")
        self._workers.__enter__()
        self._workers.submit("serve", self._server.serve)
        return self

    def __exit__(self, *exception: object) -> None:
        self._holds.end()
        self._server.stop()
        self._workers.__exit__(*exception)

    @property
    def was_asked(self) -> bool:
        """Whether an engine sent a request: it may have another loopback than ours."""
        return self._holds.was_asked


def _no_list(asked: Asked, _query: str) -> Response:
    raise NotFoundError(f"{asked.kind} of one image are not listed")
