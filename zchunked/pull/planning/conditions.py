"""Conditions of a pull: its link, and what work costs here; remembered for later pulls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from zchunked.download.coalesce import Link
from zchunked.oci.documents import Descriptor
from zchunked.options import Options
from zchunked.pull.origin import Origin
from zchunked.pull.planning.cpu_costs import SUBJECT as MACHINE
from zchunked.pull.planning.cpu_costs import TablesRead, costs_of, measured
from zchunked.pull.planning.estimates import LinkConditions
from zchunked.store import Store

if TYPE_CHECKING:
    from zchunked.pull.layer import LayerTask

_QUICK_RATE = 10e6
"""Bytes per second. Above it, parts have a price: below, the host works while the link is busy."""
_LIVE_SECONDS = 0.1
"""Of receiving. Until then the remembered rate says more: what was buffered arrives at once."""


class Conditions:
    """What one pull may count on. The store remembers it for later pulls."""

    def __init__(
        self,
        origin: Origin,
        store: Store,
        options: Options,
        spans_per_request: Callable[[Descriptor], int],
    ) -> None:
        """`spans_per_request`: what the host takes in one request, as far as is known by then."""
        self._traffic, self._store, self._options = origin.traffic, store, options
        self._spans, self._is_free = spans_per_request, origin.is_local
        _, slashes, rest = origin.name.partition("://")
        self._subject = "link " + (rest if slashes else origin.name).partition("/")[0]
        self._before = store.measures(self._subject)
        self._costs, self._cpu = costs_of(store.measures(MACHINE)), time.process_time()
        self.tables_read = TablesRead()

    def now(self) -> LinkConditions:
        traffic, before = self._traffic, self._before
        rate = traffic.rate
        if not (traffic.is_rate_known and traffic.receiving_seconds >= _LIVE_SECONDS):
            rate = before.get("rate", rate)
        round_trip = traffic.round_trip
        if round_trip is None:
            round_trip = before.get("round trip")
        part = traffic.part_seconds
        if part is None:
            part = before.get("part", 0.0)
        elif traffic.plain_rate:  # the rate while parts came is that of the host's work for them
            rate = max(rate or 0.0, traffic.plain_rate)
        if (rate or 0.0) < _QUICK_RATE:
            part = 0.0
        link = Link(round_trip, self._options.link_rate(rate), part)
        return LinkConditions(self._options.jobs, link, self._spans, self._is_free, self._costs)

    @property
    def is_rate_known(self) -> bool:
        """Whether the user stated the rate, or this pull or an earlier one measured it."""
        is_measured = self._traffic.is_rate_known or "rate" in self._before
        return self._options.rate is not None or is_measured

    def remember_link(self) -> None:
        """Keep what this pull measured, unless that says little of the link."""
        traffic = self._traffic
        if self._is_free or self._options.limit_rate is not None or traffic.link_share is not None:
            return  # what others leave of the link says little of it
        if traffic.receiving_seconds < _LIVE_SECONDS and "rate" in self._before:
            return  # a plan's short bodies, say: after it a pull chose by a rate far too low
        rate = traffic.plain_rate or traffic.rate
        if traffic.is_rate_known and rate and traffic.round_trip is not None:
            found = {"rate": rate, "round trip": traffic.round_trip}
            if traffic.part_seconds is not None:
                found["part"] = traffic.part_seconds
            self._store.remember_measures(self._subject, found)

    def remember_work(self, tasks: Sequence[LayerTask]) -> None:
        """Keep what frames or chunks cost this machine; `tasks` are all layers of the pull."""
        spent = time.process_time() - self._cpu
        found = measured(tasks, spent, self.tables_read, self._costs)
        if found and self._traffic.link_share is None:
            self._store.remember_measures(MACHINE, found)
