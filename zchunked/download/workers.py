"""Worker threads, the only ones: a pool runs tasks until all are done, one fails, or it stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, suppress
from queue import Empty, Full, Queue, SimpleQueue
from typing import Generic, Self, TypeVar

from zchunked.download.retries.retry import Stopped
from zchunked.errors import LocalError

_LOOK_SECONDS = 0.2  # between looks whether all has ended
_Item = TypeVar("_Item")
_FAREWELL_SECONDS = 2.0  # a person who pressed Ctrl-C waits no longer
Task = Callable[[], None]


class WorkerPool:
    """Named queues of tasks, each with its own daemon threads; a task may submit further tasks.

    The first failure sets `stop`; tasks that wait for something watch it and raise Stopped. Used as
    a context manager: leaving it ends the threads, or leaves those behind that hang in a system
    call: they are daemons, because everything they have written is safe at any moment.
    """

    def __init__(self, queues: dict[str, int], stop: threading.Event) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._open = dict.fromkeys(queues, 0)
        self._failure: BaseException | None = None
        self._queues: dict[str, SimpleQueue[Task | None]] = {name: SimpleQueue() for name in queues}
        self._threads: list[threading.Thread] = []
        self._sizes = dict(queues)

    def __enter__(self) -> Self:
        """Start the threads. LocalError where the system allows a queue not even one."""
        wanted, self._sizes = self._sizes, dict.fromkeys(self._sizes, 0)
        turns = [(number, name) for name, size in wanted.items() for number in range(size)]
        try:
            # first a worker for each queue
            for number, name in sorted(turns, key=lambda turn: turn[0]):
                self._start(name, number)
        except RuntimeError as error:
            if not all(self._sizes.values()):
                self.__exit__()
                raise LocalError(
                    f"the system gives out no more threads: {len(self._threads)} of {len(turns)} "
                    "could be started; allow more (ulimit -u, pids.max) and run the same "
                    "command again"
                ) from error
        return self

    def _start(self, queue: str, number: int) -> None:
        thread = threading.Thread(
            target=self._work, args=(queue,), name=f"zpull-{queue}-{number}", daemon=True
        )
        thread.start()
        self._threads.append(thread)
        self._sizes[queue] += 1

    def __exit__(self, *exception: object) -> None:
        for name, size in self._sizes.items():
            for _ in range(size):
                self._queues[name].put(None)
        end = time.monotonic() + _FAREWELL_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    @property
    def is_gone(self) -> bool:
        """Whether every thread has ended: one that hangs in a system call may outlive its pool."""
        return not any(thread.is_alive() for thread in self._threads)

    def size(self, queue: str) -> int:
        """How many workers the queue has."""
        return self._sizes[queue]

    def submit(self, queue: str, task: Task) -> None:
        with self._changed:
            self._open[queue] += 1
        self._queues[queue].put(task)

    def result_of(self, queue: str, make: Callable[[], _Item]) -> Callable[[], _Item]:
        """Have a worker of that queue call `make`; returns a function that waits for the result.

        Call that from a worker of another queue. It raises Stopped when the pool is stopped; a
        failure of `make` ends the pool, as any task's does.
        """
        out: list[_Item] = []
        is_done = threading.Event()

        def task() -> None:
            out.append(make())
            is_done.set()

        def result() -> _Item:
            while not is_done.wait(_LOOK_SECONDS):
                if self._stop.is_set():
                    raise Stopped
            return out.pop()

        self.submit(queue, task)
        return result

    def prefetch(
        self, queue: str, items: Iterator[_Item], most: int = 4
    ) -> Generator[_Item, None, None]:
        """Yield the items, made by a worker of that queue up to `most` ahead of the caller.

        Raises what making them raised, and Stopped when the pool is stopped. For a worker of
        another queue, which closes the generator unless it takes all items: until then the maker
        waits.
        """
        buffer = _Prefetch[_Item](most, self._stop)
        self.submit(queue, lambda: buffer.make(items))
        return buffer.items()

    def is_busy(self, queue: str) -> bool:
        return self._open.get(queue, 0) > 0

    def wait(
        self,
        tick: Callable[[], None],
        every: float = 0.1,
        *,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait until no task is open; raises the first failure at once.

        Calls `tick` every so many seconds and when a task has ended; it may submit further tasks.
        Returns early as soon as `until` holds.
        """
        try:
            is_done = False
            while not is_done:
                with self._changed:
                    if any(self._open.values()) and self._failure is None and not until():
                        self._changed.wait(every)
                    had_all_ended = not any(self._open.values())
                tick()
                with self._changed:
                    has_all_ended = had_all_ended and not any(self._open.values())
                    is_done = self._failure is not None or has_all_ended or until()
        except BaseException:
            self._stop.set()
            raise
        if self._failure is not None:
            raise self._failure

    def _work(self, queue: str) -> None:
        tasks = self._queues[queue]
        while (task := tasks.get()) is not None:
            try:
                if not self._stop.is_set():
                    task()
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001 - it is raised again where the pool is waited for
                with self._changed:
                    self._failure = self._failure or error
                self._stop.set()
            finally:
                del task  # what it holds may be large, and the next one late
                with self._changed:
                    self._open[queue] -= 1
                    self._changed.notify_all()


def prefetched(items: Iterator[_Item]) -> Generator[_Item, None, None]:
    """Yield the items, made a few ahead by a thread of their own, for callers without a pool.

    The thread ends on `close`. Where the system allows no thread, the caller's makes them.
    """
    with ExitStack() as stack:
        try:
            pool = stack.enter_context(WorkerPool({"make": 1}, threading.Event()))
        except LocalError:
            yield from items
            return
        yield from stack.enter_context(closing(pool.prefetch("make", items)))


class _Prefetch(Generic[_Item]):
    """A short queue between a worker that makes items and one that takes them."""

    def __init__(self, most: int, stop: threading.Event) -> None:
        self._made: Queue[tuple[list[_Item], BaseException | None]] = Queue(most)
        self._stop = stop
        self._is_left = threading.Event()

    def make(self, items: Iterator[_Item]) -> None:
        try:
            for item in items:
                self._put([item], None)
            self._put([], None)
        except Stopped:
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are taken
            self._put([], error)

    def _put(self, item: list[_Item], error: BaseException | None) -> None:
        while not (self._stop.is_set() or self._is_left.is_set()):
            with suppress(Full):
                self._made.put((item, error), timeout=_LOOK_SECONDS)
                return
        raise Stopped

    def items(self) -> Generator[_Item, None, None]:
        try:
            while True:
                item, error = self._take()
                if error is not None:
                    raise error
                if not item:
                    return
                yield item[0]
        finally:
            self._is_left.set()

    def _take(self) -> tuple[list[_Item], BaseException | None]:
        while True:
            with suppress(Empty):
                return self._made.get(timeout=_LOOK_SECONDS)
            if self._stop.is_set():
                raise Stopped
