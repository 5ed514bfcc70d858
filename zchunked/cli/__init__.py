"""The command: argv and environment in, exit code out. Verbs are in `commands/`, by family."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from zchunked.cli.signals import Signals


def main() -> None:
    """The console script. Ends the process."""
    signals = Signals()  # first of all: Ctrl-C gives no traceback from here on
    try:
        code = _run_prepared(signals)
    except KeyboardInterrupt as error:
        code = _fail(*_verdict(error, signals))
    # A worker that hangs in a system call must not hold the exit: everything is on the disk.
    os._exit(code)


def _run_prepared(signals: Signals) -> int:
    from zchunked.cli.terminal.streams import lost_output, prepare  # noqa: PLC0415

    prepare()
    code = run(sys.argv[1:], signals)
    if (why := lost_output()) and code == 0:
        code = _fail(f"standard output: {why}; the result is lost", 8)
    return code


def run(argv: list[str], signals: Signals | None = None) -> int:
    """One command; returns its exit code. The only place where errors become text."""
    try:
        from zchunked.cli.dispatch import dispatch  # noqa: PLC0415

        return dispatch(argv, os.environ)
    except SystemExit as ended:  # argparse has said its piece
        return ended.code if isinstance(ended.code, int) else 2
    except (Exception, KeyboardInterrupt) as error:
        text, code = _verdict(error, signals or Signals(is_listening=False))
        if code == 1 and os.environ.get("ZPULL_DEBUG"):
            raise
        return _fail(text, code)


def _verdict(error: BaseException, signals: Signals) -> tuple[str, int]:
    """What to say of it, and the exit code."""
    from zchunked.errors import InterruptedPullError, ZPullError  # noqa: PLC0415

    if isinstance(error, InterruptedPullError):
        return signals.named(str(error)), signals.exit_code
    if isinstance(error, ZPullError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return signals.named("interrupted; run the same command to resume"), signals.exit_code
    if isinstance(error, BrokenPipeError):
        return "standard output: its reader went away; the result is lost", 8
    if isinstance(error, MemoryError):
        return "out of memory", 8
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}", 8
    if isinstance(error, RuntimeError) and "new thread" in str(error):
        return (
            (
                "the system gives out no more threads; allow more (ulimit -u, pids.max), or use "
                "--jobs 1"
            ),
            8,
        )
    text = f"unexpected {type(error).__name__}: {str(error)[:300]}"
    return f"{text}; this is a bug, ZPULL_DEBUG=1 shows where", 1


def _fail(text: str, code: int) -> int:
    from zchunked.oci.quoting import safe_line  # noqa: PLC0415

    with suppress(OSError, ValueError):  # no reader is left
        print(f"zpull: error: {safe_line(' '.join(text.split()))}", file=sys.stderr, flush=True)
    return code
