"""A session that downloads from one origin into the store, for pulls and single objects."""

from __future__ import annotations

from collections.abc import Sequence

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.download.downloader import Downloader
from zchunked.download.session import Session
from zchunked.interfaces import Emit
from zchunked.options import Options
from zchunked.pull.origin import Origin
from zchunked.ranges import ByteRange
from zchunked.receipt import Accounts
from zchunked.store import Store


class Transfer(Session):
    """Used as a `Session`; `source` forgives failures, `downloader` writes into `store`."""

    def __init__(
        self,
        origin: Origin,
        store: Store,
        options: Options,
        show: Emit,
        accounts: Accounts | None = None,
    ) -> None:
        """`accounts`: of an earlier transfer, to count on."""
        super().__init__(
            origin.traffic,
            jobs=options.jobs,
            patience=options.patience,
            stall_limits=options.stall_limits,
            show=show,
        )
        self.origin, self.store, self.options = origin, store, options
        self.accounts = accounts or Accounts(is_free=origin.is_local)
        self.source = self.retrying(origin.source)
        self.downloader = Downloader(
            self.source,
            store,
            accounts=self.accounts,
            emit=self.emit,
            stop=self.stop,
            can_drain=lambda: origin.traffic.can_drain,
        )
        self.on_tick = self.downloader.commit_early
        self.on_stop = self.downloader.arrivals.wake

    def take_back_tables(self, plan: FetchPlan, wrong: Sequence[ByteRange]) -> bool:
        """Drop damaged tables of a layer; whether there were any, so that fetching again helps.

        Where images of the store list the layer they are the judges, for `wrong` is what a manifest
        says that may lie.
        """
        from zchunked.maintenance.tables_check import (  # noqa: PLC0415 - seldom needed
            reverify_tables,
        )

        blob = plan.blob.digest
        gone = reverify_tables(self.store, blob) or self.store.report_corruption(blob, wrong)
        self.downloader.take_back(plan, gone)
        return bool(gone)
