"""Puts the server together from its settings: store, policy, documents, flights, application, sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from zchunked import __version__
from zchunked.oci.digest import short
from zchunked.oci.platform import Platform
from zchunked.options import Options
from zchunked.serve.app import Access, App, Rooms
from zchunked.serve.documents import Documents
from zchunked.serve.flights import Flights, OpenSource, title
from zchunked.serve.lists import Lists
from zchunked.serve.metrics import Metrics
from zchunked.serve.page import Facts, FlightRow, HostRow, ImageRow, render
from zchunked.serve.server import THREADS, Server
from zchunked.serve.settings import Settings
from zchunked.store import Store

_MOST_ROWS = 200  # of images on the page


@contextmanager
def serving(
    settings: Settings,
    store: Store,
    open_source: OpenSource,
    options: Options,
    *,
    access: Callable[[Access], None],
    log: Callable[[str], None],
    threads: int = THREADS,
) -> Iterator[Server]:
    """A server that is not listening yet; flights end, and lose nothing, when the block does.

    `access` takes each request that was answered, `log` what went wrong with a client.
    """
    settings.check()
    options = replace(options, platform=Platform("", ""))
    flights: Flights
    metrics = Metrics(lambda: len(flights.current()), lambda: bytes_on_disk(store.folder))
    with Flights(store, open_source, options, metrics, prefetch=settings.prefetch) as flights:
        documents = Documents(
            store,
            open_source,
            replace(options, jobs=1),
            stale=settings.stale,
            offline=settings.offline,
            count=metrics.came,
        )
        rooms = Rooms(
            documents,
            flights,
            metrics,
            page=lambda: render(facts(store, flights, metrics)),
            passed=Lists(open_source, metrics.came),
        )
        app = App(rooms, settings.allowed, settings.clients, settings.upstreams, access)
        server = Server(app, settings.listen, certificate=settings.certificate, log=log, threads=threads)
        try:
            yield server
        finally:
            server.stop()


def facts(store: Store, flights: Flights, metrics: Metrics) -> Facts:
    """What the page shows, as of now."""
    now = time.time()
    rows = [FlightRow(title(one), one.here, one.total, now - one.began, one.note) for one in flights.current()]
    images = [
        ImageRow(image.name, image.platform, short(image.manifest), now - image.pulled)
        for image in store.images()[:_MOST_ROWS]
    ]
    hosts = [HostRow(name, one.fetched, one.karma, store.recall(name)) for name, one in sorted(metrics.hosts.items())]
    fetched = sum(one.fetched for one in metrics.hosts.values())
    size = bytes_on_disk(store.folder)
    return Facts(__version__, metrics.sent, fetched, metrics.saved, size, rows, images, hosts)


def bytes_on_disk(folder: Path) -> int:
    """Of the store's byte files and index, as the file system counts them; files that are shared count once."""
    seen: dict[tuple[int, int], int] = {}
    for path in (*folder.glob("blobs/*"), *folder.glob("index.sqlite*")):
        try:
            found = path.stat()
        except OSError:  # it went meanwhile
            continue
        seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())
