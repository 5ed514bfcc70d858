"""Signals: SIGTERM and SIGHUP end a command as orderly as Ctrl-C, even during imports."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LATER_SECONDS = 0.02  # until a signal during an import is handled
_TOGETHER_SECONDS = 1.0  # `timeout` sends its signal twice: to the process, and to its group


class Signals:
    """Raises KeyboardInterrupt in the main thread for the first signal; a later one ends at once.

    A signal that was ignored when the process began, as under nohup, stays so.
    """

    def __init__(self, *, is_listening: bool = True) -> None:
        self._first: int | None = None
        self._since = 0.0
        if is_listening:
            for number in _ENDING:
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._take)

    @property
    def exit_code(self) -> int:
        return 128 + (self._first or signal.SIGINT)

    def named(self, message: str) -> str:
        """The message, for signals that are not Ctrl-C with their name."""
        if self._first in (None, signal.SIGINT):
            return message
        return message.replace(
            "interrupted", f"interrupted by {signal.Signals(self._first or 0).name}", 1
        )

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._first is None:
            self._first, self._since = number, time.monotonic()
            self._raise(frame)
        elif time.monotonic() - self._since > _TOGETHER_SECONDS:
            os._exit(128 + number)

    def _raise(self, frame: FrameType | None) -> None:
        """Raise, but not during an import: that would leave half a module, or break C code."""
        if not _is_importing(frame):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, lambda _, now: self._raise(now))
        signal.setitimer(signal.ITIMER_REAL, _LATER_SECONDS)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
