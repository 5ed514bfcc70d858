"""The Chameleon's number: earned by bytes, spent by failures, fading with time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.download.retries.karma import ENDOWMENT, Karma

PATIENCE = st.floats(0.5, 3600)


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def step(clock: Clock, karma: Karma) -> Callable[[tuple[str, float]], None]:
    def take(event: tuple[str, float]) -> None:
        kind, amount = event
        if kind == "bytes":
            karma.gain(int(amount))
        elif kind == "wait":
            clock.now += amount
        else:
            karma.lose()

    return take


LIFE = st.lists(
    st.one_of(
        st.tuples(st.just("bytes"), st.floats(0, 1e7)),
        st.tuples(st.just("wait"), st.floats(0, 30)),
        st.just(("fail", 0.0)),
    ),
    max_size=20,
)


@given(PATIENCE, LIFE)
def test_karma_never_grows_without_bytes(patience: float, life: list[tuple[str, float]]) -> None:
    clock = Clock()
    karma = Karma(patience, clock)
    take = step(clock, karma)
    for event in life:
        before = karma.value()
        take(event)
        if event[0] != "bytes" and before >= 0:
            assert karma.value() <= before


@given(PATIENCE, LIFE, st.integers(0, 20), st.integers(1, 10**7))
def test_more_bytes_never_mean_less_tolerance(
    patience: float, life: list[tuple[str, float]], where: int, more: int
) -> None:
    tolerances = []
    for extra in (0, more):
        clock = Clock()
        karma = Karma(patience, clock)
        take = step(clock, karma)
        for number, event in enumerate(life):
            if number == where:
                karma.gain(extra)
            take(event)
        tolerances.append(karma.tolerance())
    assert tolerances[0] <= tolerances[1]


@given(PATIENCE)
def test_an_outage_from_the_start_is_borne_for_exactly_the_patience(patience: float) -> None:
    for share, is_final in ((0.0, False), (0.5, False), (0.999, False), (1.001, True), (5.0, True)):
        clock = Clock()
        karma = Karma(patience, clock)
        clock.now += patience * share
        assert karma.lose().is_final is is_final, share


@given(PATIENCE, LIFE)
def test_tolerance_says_when_a_failure_becomes_final(
    patience: float, life: list[tuple[str, float]]
) -> None:
    for share, is_final in ((0.99, False), (1.01, True)):
        clock = Clock()
        karma = Karma(patience, clock)
        take = step(clock, karma)
        for event in life:
            take(event)
        tolerance = karma.tolerance()
        clock.now += tolerance * share
        if tolerance > patience / 1000:
            assert karma.lose().is_final is is_final


def test_a_steady_stream_of_failures_is_borne_for_about_the_patience() -> None:
    clock = Clock()
    karma = Karma(60, clock)
    while not karma.lose().is_final:
        clock.now += 1
    assert 50 <= clock.now - 1000 <= 60


def test_the_classic_chameleon_has_no_endowment_and_a_time_constant_of_one_second() -> None:
    clock = Clock()
    assert Karma(14, clock, endowment=0).lose().is_final, "a first failure before any byte"
    karma = Karma(14, clock, endowment=0)
    karma.gain(1_000_000)
    clock.now += 1
    assert karma.value() == pytest.approx(1_000_000 / math.e)
    # a megabyte buys about fourteen seconds
    assert karma.tolerance() == pytest.approx(math.log(1_000_000) - 1)


def test_steady_progress_at_a_rate_is_worth_tau_times_the_logarithm_of_it() -> None:
    clock = Clock()
    karma = Karma(60, clock)
    rate, tau = 1e6, 60 / 14
    for _ in range(6000):
        clock.now += 0.01
        karma.gain(int(rate / 100))
    assert karma.tolerance() == pytest.approx(tau * math.log(rate * tau), rel=0.01)


@pytest.mark.parametrize("gained", [0, 10**9])
def test_without_patience_the_first_failure_is_final(gained: int) -> None:
    karma = Karma(0, Clock())
    karma.gain(gained)
    assert karma.lose().is_final


def test_a_clock_that_goes_back_or_stands_still_earns_nothing() -> None:
    clock = Clock()
    karma = Karma(60, clock)
    clock.now -= 500
    assert karma.value() == ENDOWMENT
    clock.now += 500
    assert karma.value() == ENDOWMENT


def test_an_hour_asleep_spends_everything_but_breaks_nothing() -> None:
    clock = Clock()
    karma = Karma(60, clock)
    clock.now += 1e9
    assert karma.value() == 0.0
    karma.gain(1000)
    assert not karma.lose().is_final


def test_a_verdict_tells_what_a_failure_did() -> None:
    clock = Clock()
    verdict = Karma(60, clock).lose()
    assert (verdict.before, verdict.after, verdict.is_final) == (ENDOWMENT, ENDOWMENT - 1, False)
