"""Gather what the status page shows: pulls in progress, images, hosts, and bytes on disk."""

from __future__ import annotations

import time
from pathlib import Path

from zchunked import __version__
from zchunked.oci.digest import short
from zchunked.serve.monitoring.metrics import Metrics
from zchunked.serve.monitoring.page import Facts, FlightRow, HostRow, ImageRow, render
from zchunked.serve.upstreams.flights import Flights
from zchunked.store import Store

_MOST_ROWS = 200  # of images on the page


def status_page(store: Store, flights: Flights, metrics: Metrics) -> bytes:
    """The page at `/`, as of now."""
    now = time.time()
    current = flights.current()
    rows = [FlightRow(one.title, one.here, one.total, now - one.began, one.note) for one in current]
    stored = store.images()
    images = [
        ImageRow(image.name, image.platform, short(image.manifest), now - image.pulled)
        for image in stored[:_MOST_ROWS]
    ]
    hosts = [
        HostRow(name, one.fetched, one.karma, store.recall(name))
        for name, one in sorted(metrics.hosts.items())
    ]
    arrived = sum(one.arrived for one in current)
    return render(
        Facts(
            __version__,
            now - metrics.began,
            metrics.sent,
            sum(one.fetched for one in metrics.hosts.values()) + arrived,
            metrics.today.saved(arrived),
            bytes_on_disk(store.folder),
            rows,
            images,
            hosts,
            len(stored) - len(images),
        )
    )


def bytes_on_disk(folder: Path) -> int:
    """Bytes of the store's files and index, as the file system counts them; shared files once."""
    seen: dict[tuple[int, int], int] = {}
    for path in (*folder.glob("blobs/*"), *folder.glob("index.sqlite*")):
        try:
            found = path.stat()
        except OSError:  # it went meanwhile
            continue
        seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())
