"""One flight: who comes while it is under way gets its outcome."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from zchunked.errors import TransientError
from zchunked.sources.http.single_flight import SingleFlight


def _together(
    flights: SingleFlight[int], call: Callable[[], int], threads: int
) -> list[int | BaseException]:
    """All join before the call may end."""
    may_end = threading.Event()

    def slow() -> int:
        assert may_end.wait(5)
        return call()

    def join() -> int | BaseException:
        try:
            return flights.run("key", slow)
        except TransientError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        asked = [pool.submit(join) for _ in range(threads)]
        while not flights._under_way:
            pass
        timer = threading.Timer(0.05, may_end.set)
        timer.start()
        return [one.result() for one in asked]


def test_many_threads_one_call() -> None:
    calls: list[int] = []

    def call() -> int:
        calls.append(1)
        return len(calls)

    assert _together(SingleFlight(), call, 6) == [1] * 6


def test_a_failure_is_shared_but_not_the_exception() -> None:
    def call() -> int:
        raise TransientError("no", retry_after=3)

    errors = _together(SingleFlight(), call, 4)
    assert len({id(error) for error in errors}) == 4
    assert all(isinstance(error, TransientError) and error.retry_after == 3 for error in errors)
    assert {str(error) for error in errors} == {"no"}


def test_nothing_is_remembered() -> None:
    flights: SingleFlight[int] = SingleFlight()
    assert [flights.run("key", lambda value=value: value) for value in (1, 2)] == [1, 2]  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        flights.run("key", lambda: 1 // 0)
    assert flights.run("key", lambda: 3) == 3
