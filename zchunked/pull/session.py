"""The session of one pull: what is committed at its end, and what goes on the receipt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from zchunked.download.workers import WorkerPool
from zchunked.errors import LocalError
from zchunked.interfaces import Emit
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.options import Options
from zchunked.pull.origin import Origin
from zchunked.pull.partial_blobs import PartialBlobs
from zchunked.pull.planning.conditions import Conditions
from zchunked.pull.transfer import Transfer
from zchunked.receipt import Accounts, Receipt
from zchunked.store import Store

_QUEUES = {"read": 1, "make": 2, "prove": 2}


class PullSession(Transfer):
    """The transfer of one image. Ends once; its receipt is true then, however it ended."""

    def __init__(
        self,
        origin: Origin,
        store: Store,
        options: Options,
        receipt: Receipt,
        show: Emit,
        accounts: Accounts | None = None,
    ) -> None:
        """`accounts`: of an earlier session on the same receipt."""
        super().__init__(origin, store, options, show, accounts)
        self.receipt = receipt
        self.partial_blobs = PartialBlobs()
        self.conditions = Conditions(origin, store, options, self.source.spans_per_request)
        self.config_bytes_here = 0  # of the image's config, before this pull
        self.bytes_here = 0
        """At the end: how much of the image's listed bytes is in the store."""
        self._began = self.clock()

    def is_proved(self, layer: Descriptor, diff_id: Digest) -> bool:
        """Whether the layer is proved by one of its digests; by those that were asked for."""
        is_whole = self.store.is_whole(layer.digest)
        is_tar = self.store.proof(layer.digest, diff_id) is not None
        if self.options.gaps.exact and not is_whole:
            return False
        return is_tar or (is_whole and not self.options.prove)

    @contextmanager
    def pulling(self) -> Iterator[WorkerPool]:
        """Workers while the block lasts; at its end all that arrived is committed and booked."""
        try:
            with self.workers(**_QUEUES, fetch=self.jobs) as pool:
                yield pool
        finally:
            try:
                if self.pool.is_gone:
                    self.downloader.close()
                else:  # a hanging worker still has its writer; what it wrote is safe without us
                    self.downloader.record_chunks()
            finally:
                self._settle()

    def _settle(self) -> None:
        receipt = self.receipt
        self.downloader.settle()
        self.count_cached()
        receipt.settle(self.traffic, self.accounts)
        receipt.retries += self.chameleon.retries
        receipt.seconds = round(receipt.seconds + self.clock() - self._began, 3)
        spent = receipt.bytes
        fetched = spent.needed + spent.metadata - self.accounts.documents
        self.bytes_here = min(spent.cached + fetched, spent.image)
        self._record_proofs()
        self.conditions.remember_link()

    def _record_proofs(self) -> None:
        with suppress(LocalError):  # whatever ended the pull says more
            for entry in self.receipt.layers:
                entry.proved = self.store.proved_by(Digest(entry.digest), Digest(entry.diff_id))
                entry.identical = entry.proved in ("blob", "both")

    def count_cached(self) -> None:
        """Put the bytes that need not be fetched onto the receipt, as far as they are known."""
        layers = sum(entry.cached_bytes for entry in self.receipt.layers)
        self.receipt.bytes.cached = self.config_bytes_here + layers
