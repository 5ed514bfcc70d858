"""Retry what failed, as karma allows: the only retry loop and the only sleep."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

from zchunked.download.retries.karma import Karma, Verdict
from zchunked.download.retries.network_time import NetworkTime
from zchunked.errors import TransferError, TransientError
from zchunked.events import GaveUp, Noted, Retried
from zchunked.interfaces import Emit
from zchunked.options import Patience

if TYPE_CHECKING:
    from tenacity import RetryCallState

_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 5.0
# bytes: a try that fetched so many before it failed is followed by the next one at once
_GOOD_TRY = 16 << 10
_GROWTH = 64 << 10  # new bytes that let one more connection begin
_TELLING_SECONDS = 3.0  # of silence, until it is reported
_Result = TypeVar("_Result")


class Stopped(Exception):  # noqa: N818 - no failure: another worker's failure, or the user, ended the pull
    """Raised in a worker when the pull has ended elsewhere."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a failure leads to: another try after `wait` seconds, or the reason to give up."""

    verdict: Verdict
    wait: float
    why_final: str | None

    @property
    def is_final(self) -> bool:
        return self.why_final is not None


class Chameleon:
    """Retry policy of one pull, shared by all workers: karma, waits, open connections. Thread-safe.

    Connections follow progress: half as many after each wave of failures without a byte, one
    more with every 64 KiB and every success.
    """

    def __init__(
        self,
        patience: Patience,
        jobs: int,
        emit: Emit,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._patience, self._jobs, self._stop = patience, jobs, stop
        self.emit = emit
        self.time = self._clock = clock if isinstance(clock, NetworkTime) else NetworkTime(clock)
        self._sleep = sleep or self._wait_or_stop
        self._changed = threading.Condition()
        self._allowed, self._busy = jobs, 0
        self._in_vain = 0  # failures since the last new byte
        self._earned = 0  # new bytes since `_allowed` last grew
        self._not_before = 0.0
        self._last_byte = 0.0  # when the last new byte arrived
        self._why_silent = ""
        self._has_reported = False
        self.retries = 0
        self.karma = Karma(patience.patience, self.time)
        """Its own, unless replaced before the start by one that several pulls share."""
        self.share: Callable[[], int] = lambda: jobs
        """How many workers may fetch at once beside those of other pulls."""

    @property
    def is_stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def allowed(self) -> int:
        """How many workers may fetch at once, as of now."""
        return self._allowed

    def would_forgive(self) -> bool:
        """Whether a failure would be forgiven now; always, where patience is 0."""
        with self._changed:
            return self._patience.patience <= 0 or self.karma.value() >= 1

    def gain(self, new_bytes: int) -> None:
        """New bytes arrived: the link lives."""
        if new_bytes:
            with self._changed:
                self.karma.gain(new_bytes)
                self._in_vain = 0
                self._last_byte, self._why_silent, self._has_reported = self._clock(), "", False
                self._earned += new_bytes
                if self._earned >= _GROWTH:
                    self._grow()

    @contextmanager
    def local_work(self) -> Iterator[None]:
        """Stop the network clock: a slow disk or a busy CPU uses up no patience."""
        with self.time.processing():
            yield

    def report_silence(self, *, is_fetching: bool) -> None:
        """Report a silence of a few seconds, and why, once. Call often."""
        with self._changed:
            now = self._clock()
            if not is_fetching:
                self._last_byte = now
            is_waiting = self._busy > 0 or self._in_vain > 0
            if not is_waiting or self._has_reported or now - self._last_byte < _TELLING_SECONDS:
                return
            self._has_reported = True
            left = self.karma.tolerance()
            why = self._why_silent or "no answer yet"
        until = f"; giving up in about {left:.0f} s" if left >= 1 else ""
        self.emit(Noted(f"waiting for the network: {why}{until}"))

    def _grow(self) -> None:
        self._earned = 0
        if self._allowed < self._jobs:
            self._allowed += 1
            self._changed.notify()

    def run(
        self, attempt: Callable[[], _Result], new_bytes: Callable[[], int] = lambda: 0
    ) -> _Result:
        """Call until it succeeds, fails for good, or karma runs out: then a TransferError says why.

        `new_bytes`: of the last attempt, asked after it failed.
        """

        def limited() -> _Result:
            with self._slot():
                return attempt()

        try:
            return limited()
        except TransientError as error:
            failure = error
        return self._go_on(failure, limited, new_bytes)

    def _go_on(
        self,
        failure: TransientError,
        attempt: Callable[[], _Result],
        new_bytes: Callable[[], int],
    ) -> _Result:
        """Go on as `run` after a first attempt, which failed so."""
        from tenacity import Retrying, retry_if_exception_type  # noqa: PLC0415 - 5 ms, and most pulls see no failure

        loop, first = _Loop(self, new_bytes), [failure]
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            wait=loop.wait,  # tenacity asks for the wait first, then whether to stop
            stop=loop.is_over,
            before_sleep=loop.report,
            sleep=self._sleep,
            retry_error_callback=loop.give_up,
        )

        def again() -> _Result:
            if first:
                raise first.pop()
            return attempt()

        return retrying(again)

    def forgive(self, error: TransientError, new_bytes: int = 0, tries: int = 1) -> Decision:
        """Count one failure. Decided in one place: workers that fail together wait together.

        A try that fetched bytes says that the link works, though it breaks: it costs karma, but no
        connection and the less waiting the more it fetched. Without this a link that breaks every
        64 KiB took four times as long.
        """
        with self._changed:
            verdict = self.karma.lose()
            tolerance = self.karma.tolerance()
            now = self._clock()
            first = self._in_vain == 0 or new_bytes > 0
            # otherwise it belongs to a wave that is waited for
            if not new_bytes and (first or now >= self._not_before):
                self._in_vain += 1
                if not first:
                    self._allowed = max(1, self._allowed // 2)
            doubled = 0 if new_bytes else min(self._in_vain - 1, 10)
            wait = min(_LONGEST_WAIT, _SHORTEST_WAIT * 2**doubled) * random.uniform(0.5, 1)
            wait *= 1 - min(new_bytes, _GOOD_TRY) / _GOOD_TRY
            # Near the end of our patience a last try is worth more than a long wait.
            wait = min(wait, max(tolerance, _SHORTEST_WAIT))
            # otherwise any wait grants it
            wish = error.retry_after if (error.retry_after or 0) >= _SHORTEST_WAIT else None
            why_final = self._why_final(verdict, wish, tolerance)
            if error.most_tries is not None and tries >= error.most_tries:
                why_final = why_final or "more tries seldom help"
            self._why_silent = str(error) + (
                f"; the server asks to wait {wish:.0f} s" if wish else ""
            )
            if why_final is None:
                self.retries += 1
                wait = wish or wait
                if not first or wish:
                    self._not_before = max(self._not_before, now + wait)
            return Decision(verdict, wait, why_final)

    def _why_final(self, verdict: Verdict, wish: float | None, tolerance: float) -> str | None:
        if verdict.is_final:
            return "karma is spent"
        if self._patience.retries is not None and self.retries >= self._patience.retries:
            return f"the {self._patience.retries} retries allowed are used up"
        if wish is not None and wish > max(tolerance, _SHORTEST_WAIT):
            return f"the server asks to wait {wish:.0f} s, the patience ends in {tolerance:.0f} s"
        return None

    def _wait_or_stop(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Wait until one more worker may fetch, and for the end of a common wait."""
        with self._changed:
            while self._busy >= min(self._allowed, self.share()):
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(0.2)
            self._busy += 1
        try:
            with self.time.fetching():
                if (wait := self._not_before - self._clock()) > 0:
                    self._sleep(wait)
                if self._stop.is_set():
                    raise Stopped
                yield
            with self._changed:
                self._grow()
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify()


class _Loop:
    """The hooks of one retry loop: tenacity drives, the Chameleon decides."""

    def __init__(self, chameleon: Chameleon, new_bytes: Callable[[], int]) -> None:
        self._chameleon, self._new_bytes = chameleon, new_bytes
        self._decision: Decision | None = None
        self._bounded = 0
        """Tries in a row that ended in an error with a limit of its own (`most_tries`)."""

    def wait(self, state: RetryCallState) -> float:
        if self._chameleon.is_stopped:  # the failure is that nothing more was received by then
            return 0.0
        error = _error_of(state)
        self._bounded = self._bounded + 1 if error.most_tries is not None else 0
        self._decision = self._chameleon.forgive(error, self._new_bytes(), self._bounded)
        return self._decision.wait

    def is_over(self, _: RetryCallState) -> bool:
        return self._chameleon.is_stopped or (
            self._decision is not None and self._decision.is_final
        )

    def report(self, state: RetryCallState) -> None:
        if self._decision is not None:
            karma = self._decision.verdict
            self._chameleon.emit(
                Retried(
                    str(_error_of(state)),
                    karma.before,
                    karma.after,
                    self._decision.wait,
                    state.attempt_number,
                )
            )

    def give_up(self, state: RetryCallState) -> NoReturn:
        error = _error_of(state)
        if self._chameleon.is_stopped:
            raise Stopped from error
        decision = self._decision
        why = ""
        if decision is not None and decision.why_final is not None:
            karma, why = decision.verdict, f"; {decision.why_final}"
            self._chameleon.emit(
                GaveUp(
                    str(error), karma.before, karma.after, decision.why_final, state.attempt_number
                )
            )
        if error.if_lasting is not None and self._bounded >= (error.most_tries or 0):
            raise error.if_lasting from error
        tries = f"{state.attempt_number} tries" if state.attempt_number > 1 else "one try"
        raise TransferError(f"gave up after {tries}: {error}{why}") from error


def _error_of(state: RetryCallState) -> TransientError:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, TransientError):
        raise TypeError("only transient errors are retried")
    return error
