"""Counters of the server, for Prometheus and its page. The only prometheus_client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from zchunked.events import Event, GaveUp, Retried
from zchunked.interfaces import Emit
from zchunked.serve.monitoring.today import Today
from zchunked.sources.traffic import Traffic
from zchunked.store import Store


@dataclass(slots=True)
class HostCount:
    """Counts of one upstream. `karma`: after its last failure, None without one."""

    fetched: int = 0
    requests: int = 0
    karma: float | None = None


class Metrics:
    """One registry of its own, so that two servers in one process do not mix. Thread-safe."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(
        self, store: Store, flights: Callable[[], int], store_bytes: Callable[[], int]
    ) -> None:
        """`flights` and `store_bytes` are asked when the metrics are read."""
        self.today = Today(store)
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self.began = time.time()
        self.sent = 0
        self.hosts: dict[str, HostCount] = {}
        self._answers = self._counter("zpull_requests", "Requests answered.", "method", "code")
        self._sent = self._counter("zpull_client_bytes", "Body bytes sent to clients.")
        self._fetched = self._counter(
            "zpull_upstream_bytes", "Body bytes received from upstream.", "host"
        )
        self._requests = self._counter("zpull_upstream_requests", "Requests sent upstream.", "host")
        self._saved = self._counter(
            "zpull_saved_bytes", "Bytes of pulled images that were in the store already."
        )
        self._retries = self._counter("zpull_retries", "Failures that karma forgave.", "host")
        self._gave_up = self._counter(
            "zpull_gave_up", "Failures that karma did not forgive.", "host"
        )
        self._karma = Gauge(
            "zpull_karma", "Karma after the last failure.", ["host"], registry=self._registry
        )
        gauge = Gauge("zpull_flights", "Pulls in progress.", registry=self._registry)
        gauge.set_function(flights)
        gauge = Gauge("zpull_store_bytes", "Bytes on disk in the store.", registry=self._registry)
        gauge.set_function(store_bytes)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self._registry)

    def answered(self, method: str, status: int) -> None:
        """`method`: as the client said it; only those of the standard get a label of their own."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._answers.labels(known, str(status)).inc()

    def sent_to_client(self, size: int) -> None:
        """Body bytes."""
        self._sent.inc(size)
        with self._lock:
            self.sent += size
        self.today.add(sent=size)

    def was_here(self, size: int) -> None:
        """Bytes of an image that need not be fetched."""
        self._saved.inc(size)

    def received(self, host: str, traffic: Traffic) -> None:
        """All that one pull or one question cost, once it has ended."""
        self._fetched.labels(host).inc(traffic.fetched)
        self._requests.labels(host).inc(traffic.requests)
        with self._lock:
            count = self.hosts.setdefault(host, HostCount())
            count.fetched += traffic.fetched
            count.requests += traffic.requests
        self.today.add(fetched=traffic.fetched)

    def counted(self, host: str, show: Emit) -> Emit:
        """Count failures among the events of a pull, and pass all events on to `show`."""

        def shown(event: Event) -> None:
            if isinstance(event, Retried | GaveUp):
                self._failed(host, event)
            show(event)

        return shown

    def _failed(self, host: str, event: Retried | GaveUp) -> None:
        (self._retries if isinstance(event, Retried) else self._gave_up).labels(host).inc()
        self._karma.labels(host).set(event.karma_after)
        with self._lock:
            self.hosts.setdefault(host, HostCount()).karma = event.karma_after

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
