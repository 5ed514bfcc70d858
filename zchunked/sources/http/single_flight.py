"""Single flight: calls of several threads for one key are made once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class SingleFlight(Generic[_Result]):
    """Calls under way, by key. Nothing is remembered once a call has ended. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Future[_Result]] = {}

    def run(self, key: Hashable, call: Callable[[], _Result]) -> _Result:
        """Result or error of `call`, or of another thread's call for this key under way."""
        with self._lock:
            flight = self._under_way.get(key)
            leads = flight is None
            if flight is None:
                flight = self._under_way[key] = Future()
        if not leads:
            if (error := flight.exception()) is not None:
                raise copy.copy(error) from error  # one instance must not be raised in two threads
            return flight.result()
        try:
            result = call()
        except BaseException as error:
            self._end(key)
            flight.set_exception(error)
            raise
        self._end(key)
        flight.set_result(result)
        return result

    def _end(self, key: Hashable) -> None:
        with self._lock:
            del self._under_way[key]
