"""Run an engine's program: ask it, pipe an archive through it, or let it outlive its caller."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from zchunked.errors import LocalError
from zchunked.oci.quoting import printable

Process = subprocess.Popen[bytes]
PIPE, NOTHING = subprocess.PIPE, subprocess.DEVNULL
_WATCH = (
    "exec 3<&0 </dev/null; { read -r _ <&3; kill 0; } >/dev/null 2>&1 & "
    "exec 3<&-; trap : INT TERM PIPE; "
)
"""Ends a script's programs, not the script, once who started it is gone, however it went.

docker asks an address without a listener for 75 s, and later pulls of the same layers wait for
that.
"""
_LOOK_SECONDS = 0.1
_FAREWELL_SECONDS = 20.0


class Program:
    """A program and its first arguments. Methods raise LocalError with what it said."""

    def __init__(self, name: str, *argv: str) -> None:
        """`name`: the engine's, for messages."""
        self.name, self.argv = name, argv

    def run(self, *words: str, may_fail: bool = False) -> str:
        """What it prints."""
        return self.result(self.start(*words), words, may_fail=may_fail)

    def start(self, *words: str, stdin: int = NOTHING, stdout: int = PIPE) -> Process:
        """Start it; the caller waits for it."""
        argv = [*self.argv, *words]
        try:
            return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=PIPE)
        except OSError as error:
            raise LocalError(f"cannot run {argv[0]}: {error.strerror}") from error

    def result(
        self,
        process: Process,
        words: Sequence[str],
        *,
        may_fail: bool = False,
        seconds: float | None = None,
    ) -> str:
        """What a process that was started with these words prints. `seconds`: it may take."""
        with process:
            try:
                out, said = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise LocalError(
                    f"{self.name} does not answer: `{words[0]}` took more than {seconds:g} s"
                ) from error
            except BaseException:
                process.kill()
                raise
        if process.returncode and not may_fail:
            raise self.failure(said or out, words)
        return out.decode("utf-8", "replace")

    def failure(self, said: bytes, words: Sequence[str]) -> LocalError:
        """The error for what it said when it failed."""
        lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        text = (
            printable(lines[-1][:500])
            if lines
            else f"`{' '.join(words[:2])}` failed and said nothing"
        )
        return LocalError(f"{self.name}: {text}")

    def run_script(self, argv: Sequence[str], is_over: Callable[[], bool]) -> None:
        """Run a script for /bin/sh, with its arguments, until it ends or `is_over` holds.

        It has a process group of its own: neither Ctrl-C nor a kill keeps it from tidying up. Its
        first program ends then.
        """
        script, *words = argv
        with ExitStack() as stack:
            try:
                ours, alive = os.pipe()  # whatever ends this process closes it
                stack.callback(os.close, ours)
                stack.callback(os.close, alive)
                process = subprocess.Popen(
                    ["/bin/sh", "-c", _WATCH + script, *words],
                    stdin=ours,
                    stdout=PIPE,
                    stderr=PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                raise LocalError(f"cannot run /bin/sh: {error.strerror}") from error
            with process:
                said = _outcome(process, is_over)
        if process.returncode:
            raise self.failure(said, ("pull",))


def _outcome(process: Process, is_over: Callable[[], bool]) -> bytes:
    while True:
        try:
            out, said = process.communicate(timeout=_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if is_over():
                return _end(process)
        else:
            return said or out


def _end(process: Process) -> bytes:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.communicate(timeout=_FAREWELL_SECONDS)[1]
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[1]
