"""Abort conditions beyond karma: deadline, minimum rate, no useful bytes."""

from __future__ import annotations

from collections.abc import Callable

from zchunked.download.retry import Chameleon
from zchunked.errors import TransferError
from zchunked.options import StallLimits
from zchunked.sources.traffic import Traffic

_STRETCH_SECONDS = 10.0  # rates are held against stretches of this length
# bytes per second: below that, and without one that is new, a server only keeps us busy
_USELESS_RATE = 100


class Watchdog:
    """For one pull, from the moment it is made. Only stretches in which something is being fetched
    count, and of those only the time in which the network was waited for.
    """

    def __init__(
        self,
        stall_limits: StallLimits,
        traffic: Traffic,
        chameleon: Chameleon,
        clock: Callable[[], float],
    ) -> None:
        self._stall_limits, self._traffic, self._chameleon, self._clock = (
            stall_limits,
            traffic,
            chameleon,
            clock,
        )
        self._began = clock()
        self._stretch = self._useless = (chameleon.time(), 0)

    def check(self, *, is_fetching: bool) -> None:
        """Call often. Raises TransferError when the deadline has passed, or too little has come for
        too long.
        """
        self._chameleon.tell_silence(is_fetching=is_fetching)
        now, came = self._chameleon.time(), self._traffic.fetched
        if (
            self._stall_limits.deadline is not None
            and self._clock() - self._began > self._stall_limits.deadline
        ):
            raise TransferError(f"the deadline of {self._stall_limits.deadline:g} s has passed")
        if not is_fetching:
            self._stretch = now, came
        if not is_fetching or self._chameleon.is_borne():
            self._useless = now, came
        self._check_rate(now, came)
        self._check_use(now, came)

    def _check_rate(self, now: float, came: int) -> None:
        since, before = self._stretch
        least = self._stall_limits.min_rate
        if least is None or now - since < _STRETCH_SECONDS:
            return
        self._stretch = now, came
        rate = (came - before) / (now - since)
        if rate < least:
            raise TransferError(
                f"{rate:.0f} bytes/s over {now - since:.0f} s is below the minimum rate of "
                f"{least:.0f}"
            )

    def _check_use(self, now: float, came: int) -> None:
        """A server that dribbles never fails, so karma never gets to judge it; but its silence has
        been too long.
        """
        since, before = self._useless
        if now - since < _STRETCH_SECONDS:
            return
        self._useless = now, came
        if came - before < _USELESS_RATE * (now - since):
            raise TransferError(
                f"nothing useful has come for longer than our patience, {came - before} bytes in "
                "all"
            )
