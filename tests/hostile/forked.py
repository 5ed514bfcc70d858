"""Run the command many times, each time in a fork of a process that has loaded all of it, and
measure each child.

`python -m tests.hostile.forked < RUNS`: a JSON list of runs; prints a list of what came of them.
Loading takes longer than a refusal does, and memory and time of a child are its own.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.helpers.harness.command import environment

_LOADED = (
    "cli.dispatch",
    "cli.streams",
    "cli.commands.pull",
    "operations.pulling",
    "sources.registry",
    "pull.pull",
)


@dataclass(frozen=True)
class Run:
    """What to run, in which home; what it prints goes there."""

    argv: list[str]
    home: str


@dataclass(frozen=True)
class Cost:
    """Exit code (negative: the signal), most memory at a time in bytes, seconds of CPU and of a
    clock.
    """

    code: int
    peak_bytes: int
    cpu_seconds: float
    seconds: float


def run_all(runs: Sequence[Run]) -> list[Cost]:
    """One after the other."""
    text = json.dumps([asdict(one) for one in runs])
    argv = [sys.executable, "-m", "tests.hostile.forked"]
    done = subprocess.run(
        argv, input=text, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    return [Cost(**one) for one in json.loads(done.stdout)]


def main() -> None:
    for name in _LOADED:
        importlib.import_module(f"zchunked.{name}")
    print(json.dumps([asdict(_cost(Run(**one))) for one in json.load(sys.stdin)]))


def _cost(run: Run) -> Cost:
    began = time.monotonic()
    child = os.fork()
    if not child:
        _become(run)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return Cost(code, used.ru_maxrss << 10, used.ru_utime + used.ru_stime, time.monotonic() - began)


def _become(run: Run) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(run.home, name), os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(environment(Path(run.home)))
    sys.argv = ["zpull", *run.argv]
    importlib.import_module("zchunked.cli").main()  # ends the process


if __name__ == "__main__":
    main()
