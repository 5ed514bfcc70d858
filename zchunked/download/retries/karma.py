"""Karma, the Chameleon's number: earned by bytes, spent by failures, fading with time. Pure."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

ENDOWMENT = math.exp(14)
"""Karma at the start: as if a megabyte had arrived, so patience counts from the first moment."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one failure did. Karma below zero ends the pull."""

    before: float
    after: float

    @property
    def is_final(self) -> bool:
        return self.after < 0


class Karma:
    """+1 for every new byte, -1 for every failure, decay by exp(-t/τ) with τ = patience/14.

    After steady progress at a rate r a total outage is survived for about τ·ln(r·τ) seconds; with
    the endowment, one at the very start for `patience` seconds. With patience 0 the first failure
    is final. Not thread-safe: its owner is.
    """

    def __init__(
        self, patience: float, clock: Callable[[], float], endowment: float = ENDOWMENT
    ) -> None:
        self._tau = patience / 14
        self._clock = clock
        self._at = clock()
        self._value = endowment if patience > 0 else 0.0

    def gain(self, new_bytes: int) -> None:
        self._value = self.value() + new_bytes

    def lose(self) -> Verdict:
        before = self.value() if self._tau > 0 else 0.0
        self._value = before - 1
        return Verdict(before, self._value)

    def value(self) -> float:
        """Karma now."""
        now = self._clock()
        if self._tau > 0 and now > self._at:
            self._value *= math.exp(-(now - self._at) / self._tau)
        self._at = max(now, self._at)
        return self._value

    def tolerance(self) -> float:
        """Seconds of complete silence after which a single failure would be final."""
        value = self.value()
        return self._tau * math.log(value) if value > 1 else 0.0


class SharedKarma(Karma):
    """One for all pulls from a host: what one gains or loses counts for all. Thread-safe."""

    def __init__(self, patience: float, clock: Callable[[], float]) -> None:
        super().__init__(patience, clock)
        self._lock = threading.RLock()

    def gain(self, new_bytes: int) -> None:
        with self._lock:
            super().gain(new_bytes)

    def lose(self) -> Verdict:
        with self._lock:
            return super().lose()

    def value(self) -> float:
        with self._lock:
            return super().value()
