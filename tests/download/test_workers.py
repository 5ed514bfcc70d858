"""Items that one worker makes ahead of another."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from zchunked.download.retries.retry import Stopped
from zchunked.download.workers import WorkerPool, prefetched
from zchunked.errors import LocalError


def numbers(made: list[int], end: int = 1_000) -> Iterator[int]:
    for number in range(end):
        made.append(number)
        yield number


def run(pool: WorkerPool, task: object) -> None:
    with pool:
        pool.submit("take", task)  # type: ignore[arg-type]
        pool.wait(lambda: None)


@pytest.fixture
def pool() -> WorkerPool:
    return WorkerPool({"make": 1, "take": 1}, threading.Event())


def test_items_come_in_order_and_only_a_few_are_made_ahead(pool: WorkerPool) -> None:
    made: list[int] = []
    taken: list[int] = []

    def take() -> None:
        for number in pool.prefetch("make", numbers(made), most=3):
            assert len(made) <= number + 6
            taken.append(number)

    run(pool, take)
    assert taken == list(range(1_000))


def test_what_making_raises_comes_out_where_items_are_taken(pool: WorkerPool) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    taken: list[int] = []

    def take() -> None:
        with pytest.raises(ValueError, match="no more"):
            taken.extend(pool.prefetch("make", broken()))

    run(pool, take)
    assert taken == [1]


def test_whoever_stops_taking_ends_the_making(pool: WorkerPool) -> None:
    made: list[int] = []

    def take() -> None:
        items = pool.prefetch("make", numbers(made, 1_000_000))
        assert next(items) == 0
        items.close()

    run(pool, take)
    assert len(made) < 20


def test_items_made_ahead_without_a_pool() -> None:
    made: list[int] = []
    assert list(prefetched(numbers(made, 100))) == made == [*range(100)]
    before = threading.active_count()
    items = prefetched(numbers(made, 1_000_000))
    assert next(items) == 0
    assert threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before
    assert len(made) < 120


def test_a_pool_that_is_stopped_waits_for_no_items() -> None:
    stop = threading.Event()
    pool = WorkerPool({"make": 1, "take": 1}, stop)
    seen: list[str] = []

    def slow() -> Iterator[int]:
        yield 1
        stop.wait(10)
        yield 2

    def take() -> None:
        items = pool.prefetch("make", slow())
        next(items)
        stop.set()
        try:
            next(items)
            next(items)
        except Stopped:
            seen.append("stopped")
            raise

    run(pool, take)
    assert seen == ["stopped"]


def test_a_worker_keeps_nothing_of_a_task_that_has_ended(pool: WorkerPool) -> None:
    class Large:
        def task(self) -> None:
            """Nothing."""

    large = Large()
    gone = weakref.ref(large)
    with pool:
        pool.submit("take", large.task)
        del large
        pool.wait(lambda: None)
        assert gone() is None


@pytest.mark.parametrize(("most", "works"), [(5, True), (2, True), (1, False), (0, False)])
def test_few_threads_are_enough_and_none_is_local_trouble(
    most: int, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, lanes = threading.Thread.start, iter(range(100))

    def limited(thread: threading.Thread) -> None:
        if next(lanes) >= most:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    pool = WorkerPool({"make": 1, "take": 8}, threading.Event())
    if works:
        done: list[int] = []
        run(pool, lambda: done.append(pool.size("take")))
        assert done == [most - 1]
    else:
        with pytest.raises(LocalError, match="no more threads"), pool:
            pass
        assert pool.is_gone


# ── few threads to be had ──


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on the system gives out so many threads."""

    def have(count: int) -> None:
        left = [count]
        start = threading.Thread.start

        def starting(thread: threading.Thread) -> None:
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", starting)

    return have


@pytest.mark.parametrize("count", [3, 4, 9])
def test_with_few_threads_each_lane_has_one_before_any_has_two(
    count: int, scarce: Callable[[int], None]
) -> None:
    scarce(count)
    pool = WorkerPool({"make": 2, "prove": 2, "fetch": 8}, threading.Event())
    done: list[int] = []
    with pool:
        assert all(pool.size(queue) for queue in ("make", "prove", "fetch"))
        assert sum(pool.size(queue) for queue in ("make", "prove", "fetch")) == count
        for number in range(20):
            for queue in ("make", "prove", "fetch"):
                pool.submit(queue, partial(done.append, number))
        pool.wait(lambda: None)
    assert len(done) == 60
    assert pool.is_gone


def test_a_lane_without_a_thread_is_local_trouble_and_leaves_none_behind(
    scarce: Callable[[int], None],
) -> None:
    scarce(2)
    pool = WorkerPool({"make": 1, "prove": 1, "fetch": 8}, threading.Event())
    with pytest.raises(LocalError, match="no more threads: 2 of 10"), pool:
        pytest.fail("it was entered")
    assert pool.is_gone


def test_without_a_thread_items_are_made_by_the_caller(scarce: Callable[[int], None]) -> None:
    scarce(0)
    made: list[int] = []
    assert list(prefetched(numbers(made, 100))) == [*range(100)]
