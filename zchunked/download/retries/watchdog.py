"""Abort conditions beyond karma: deadline, minimum rate, no useful bytes."""

from __future__ import annotations

from collections.abc import Callable

from zchunked.download.retries.retry import Chameleon
from zchunked.errors import TransferError
from zchunked.options import StallLimits
from zchunked.sources.traffic import Traffic

_STRETCH_SECONDS = 10.0  # rates are held against stretches of this length
# bytes per second: below that, and without one that is new, a server only keeps us busy
_USELESS_RATE = 100


class Watchdog:
    """Watches one pull, from the moment it is made.

    Only stretches in which something is being fetched count, and of those only the time in which
    workers waited for the network.
    """

    def __init__(
        self,
        stall_limits: StallLimits,
        traffic: Traffic,
        chameleon: Chameleon,
        clock: Callable[[], float],
    ) -> None:
        self._stall_limits, self._traffic = stall_limits, traffic
        self._chameleon, self._clock = chameleon, clock
        self._began = clock()
        self._stretch = self._useless = (chameleon.time(), 0)

    def check(self, *, is_fetching: bool) -> None:
        """Raise TransferError after the deadline, or after too few bytes for too long.

        Call often.
        """
        self._chameleon.report_silence(is_fetching=is_fetching)
        now, received = self._chameleon.time(), self._traffic.fetched
        if (
            self._stall_limits.deadline is not None
            and self._clock() - self._began > self._stall_limits.deadline
        ):
            raise TransferError(f"the deadline of {self._stall_limits.deadline:g} s has passed")
        if not is_fetching:
            self._stretch = now, received
        if not is_fetching or self._chameleon.would_forgive():
            self._useless = now, received
        self._check_rate(now, received)
        self._check_use(now, received)

    def _check_rate(self, now: float, received: int) -> None:
        since, before = self._stretch
        least = self._stall_limits.min_rate
        if least is None or now - since < _STRETCH_SECONDS:
            return
        self._stretch = now, received
        rate = (received - before) / (now - since)
        if rate < least:
            raise TransferError(
                f"{rate:.0f} bytes/s over {now - since:.0f} s is below the minimum rate of "
                f"{least:.0f}"
            )

    def _check_use(self, now: float, received: int) -> None:
        """Raise TransferError for a server that dribbles: it never fails, so karma stays."""
        since, before = self._useless
        if now - since < _STRETCH_SECONDS:
            return
        self._useless = now, received
        if received - before < _USELESS_RATE * (now - since):
            raise TransferError(
                "nothing useful arrived for longer than the patience allows, "
                f"{received - before} bytes in all"
            )
