"""Serve what the store holds on loopback while an engine of this machine pulls from it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from zchunked.download.workers import WorkerPool
from zchunked.oci.platform import Platform
from zchunked.oci.reference import Reference
from zchunked.options import Options
from zchunked.pull.origin import Origin
from zchunked.serve.policy import Allowed
from zchunked.serve.settings import Settings
from zchunked.serve.wiring import serving
from zchunked.sources.offline import OfflineSource
from zchunked.sources.traffic import Traffic
from zchunked.store import Store


def with_registry(store: Store, host: str, use: Callable[[str], None]) -> None:
    """Call `use`, on this thread, with the address of a registry that holds what the store holds.

    `host`: the first part of the names that it serves. The registry ends when `use` returns.
    """
    settings = Settings(
        ("127.0.0.1", 0),
        allowed=Allowed(frozenset()),
        upstreams={host: "localhost"},
        offline=True,
        prefetch=False,
    )

    def opened(reference: Reference) -> Origin:
        return Origin(reference, OfflineSource(str(reference)), Traffic(time.monotonic))

    options, stop = Options(Platform("", "")), threading.Event()
    with (
        serving(
            settings, store, opened, options,
            access=lambda _: None, log=lambda _: None, threads=16,
        ) as server,
        WorkerPool({"serve": 1}, stop) as workers,
    ):  # fmt: skip
        address = "{}:{}".format(*server.open())
        workers.submit("serve", server.serve)
        try:
            use(address)
        finally:
            server.stop()
