"""Run the command many times, each in a fork of a process that loaded it, and measure each.

Loading takes ten times as long as most commands do, and memory and time of a child are its own.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tests.helpers.harness.command import environment

_PULL = (
    "cli.dispatch",
    "cli.terminal.streams",
    "cli.commands.pull",
    "operations.pulling",
    "sources.registry",
    "pull.pull",
)
_MOST_SECONDS = 120


@dataclass(frozen=True)
class Run:
    """What to run, in which home. Its output goes to `out` and `err` there, or in `folder`."""

    argv: list[str]
    home: str
    stdin: str = "/dev/null"
    prints: str = ""


@dataclass(frozen=True)
class Cost:
    """Exit code (negative: the signal), peak memory in bytes, seconds of CPU and of a clock."""

    code: int
    peak_bytes: int
    cpu_seconds: float
    seconds: float


class Forks:
    """The process that has loaded all; ended with the block."""

    def __init__(
        self, *more: str, python: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> None:
        """`more` modules than a pull's to load; options for Python; variables beside ours."""
        argv = [sys.executable, *python, "-m", "tests.helpers.harness.forked", *_PULL, *more]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
            env={**os.environ, **(env or {})},
        )

    def run(self, run: Run) -> Cost:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(run)) + "\n")
        self._process.stdin.flush()
        return Cost(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(f"zchunked.{name}")
    for line in sys.stdin:
        print(json.dumps(asdict(_cost(Run(**json.loads(line))))), flush=True)


def _cost(run: Run) -> Cost:
    began = time.monotonic()
    child = os.fork()
    if not child:
        _become(run)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return Cost(code, used.ru_maxrss << 10, used.ru_utime + used.ru_stime, time.monotonic() - began)


def _become(run: Run) -> None:
    signal.alarm(_MOST_SECONDS)
    os.dup2(os.open(run.stdin, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        path = Path(run.prints or run.home, name)
        os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    sys.stdin = os.fdopen(0, closefd=False)
    os.environ.clear()
    os.environ.update(environment(Path(run.home)))
    sys.argv = ["zpull", *run.argv]
    importlib.import_module("zchunked.cli").main()  # ends the process


if __name__ == "__main__":
    main()
