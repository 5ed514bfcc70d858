"""Context of every operation: the store, the user's options, and where events go."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from zchunked.interfaces import Emit, Source
from zchunked.oci.reference import ImageReference, LayoutReference
from zchunked.options import Connection, Options
from zchunked.pull.origin import Origin
from zchunked.sources import open_source
from zchunked.sources.network import Network
from zchunked.sources.offline import OfflineSource, is_on_this_machine
from zchunked.sources.shared_link import LinkShare
from zchunked.sources.traffic import RateLimit, Traffic
from zchunked.store import Store

SILENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Context:
    """`environment` gives credentials and proxies. `show` gets events on the caller's thread.

    `limit`: of all pulls of this context together. None: each is held to `limit_rate` by itself.
    """

    store: Store
    options: Options
    connection: Connection
    environment: Mapping[str, str]
    show: Emit
    limit: RateLimit | None = None

    @property
    def silence(self) -> float:
        """Seconds without a byte until a connection counts as broken."""
        return bearable(self.connection.stall_timeout, self.options.patience.patience)

    def traffic(self, link_share: LinkShare | None = None) -> Traffic:
        """The traffic of one pull, held to `limit_rate`. `link_share`: beside other pulls."""
        return Traffic(
            time.monotonic, limit=self.limit or limit_of(self.options), link_share=link_share
        )

    def open(self, reference: ImageReference, traffic: Traffic | None = None) -> Origin:
        """Open the source, as connection and `offline` say; the caller closes it.

        `traffic`: None: new.
        """
        traffic = traffic or self.traffic()
        return Origin(reference, self._source(reference, traffic), traffic)

    def _source(self, reference: ImageReference, traffic: Traffic) -> Source:
        if self.options.offline and not is_on_this_machine(reference):
            return OfflineSource(str(reference))
        if isinstance(reference, LayoutReference) and reference.is_engine:
            from zchunked.operations.engine_source import open_engine_image  # noqa: PLC0415 - few images are of an engine

            return open_engine_image(reference, self.store.folder)
        store = self.store
        return open_source(
            reference,
            self.network(traffic),
            hosts=store,
            documents=store.document,
            spool=store.folder,
        )

    def network(self, traffic: Traffic) -> Network:
        """How servers are reached; what goes over it is counted by `traffic`."""
        link = self.connection
        return Network(
            traffic,
            self.environment,
            connect_seconds=min(self.silence, SILENCE_SECONDS),
            stall_seconds=self.silence,
            plain_http=link.plain_http,
            tls_verify=link.tls_verify,
            cert_dir=link.cert_dir,
            authfile=link.authfile,
            credentials=link.credentials,
            registries_conf=link.registries_conf,
        )


def limit_of(options: Options) -> RateLimit | None:
    """What keeps to `limit_rate`."""
    rate = options.limit_rate
    return RateLimit(rate, clock=time.monotonic, wait=threading.Event().wait) if rate else None


def bearable(stated: float | None, patience: float) -> float:
    """Seconds of silence that count as failure, at most the patience."""
    if stated is not None:
        return max(stated, 0.1)
    return min(SILENCE_SECONDS, max(patience / 2, 1.0)) if patience else SILENCE_SECONDS
