"""Assemble the server by its settings: store, policy, documents, flights, application, sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from zchunked.options import Options
from zchunked.serve.api.documents import Documents
from zchunked.serve.api.lists import Lists
from zchunked.serve.app import AccessLog, App, Services
from zchunked.serve.monitoring.metrics import Metrics
from zchunked.serve.monitoring.status import bytes_on_disk, status_page
from zchunked.serve.server import THREADS, Server
from zchunked.serve.settings import Settings
from zchunked.serve.upstreams.flights import Flights
from zchunked.serve.upstreams.lease import StoreLease
from zchunked.serve.upstreams.upstream import OpenSource, Upstream
from zchunked.store import Store


@contextmanager
def serving(
    settings: Settings,
    store: Store,
    open_source: OpenSource,
    options: Options,
    *,
    access: AccessLog,
    log: Callable[[str], None],
    threads: int = THREADS,
) -> Iterator[Server]:
    """A server that is not listening yet; flights end, and lose nothing, when the block does.

    `access` takes each request that was answered, `log` what went wrong with a client.
    """
    settings.check()
    flights: Flights
    metrics = Metrics(store, lambda: len(flights.current()), lambda: bytes_on_disk(store.folder))
    upstream = Upstream(store, open_source, options, metrics)
    lease = StoreLease(store, settings.rest_seconds, settings.store_max, metrics.today.remember)
    with ExitStack() as stack:
        stack.callback(metrics.today.remember)  # flights open the store again when they end
        flights = stack.enter_context(Flights(store, upstream, lease, prefetch=settings.prefetch))
        documents = Documents(store, upstream, stale=settings.stale, offline=settings.offline)

        def page() -> bytes:
            with lease.use():
                return status_page(store, flights, metrics)

        pages = {
            "/": ("text/html; charset=utf-8", page),
            "/metrics": (metrics.content_type, metrics.text),
        }
        services = Services(documents, flights, pages, Lists(upstream), metrics)
        app = App(services, settings.allowed, settings.clients, settings.upstreams, access, lease)
        server = Server(
            app, settings.listen, certificate=settings.certificate, log=log, threads=threads
        )
        try:
            yield server
        finally:
            server.stop()
