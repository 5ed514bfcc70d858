"""The command: argv and environment in, exit code out. What a verb does lives beside, one file per family of verbs."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import NoReturn

from zchunked.errors import LocalError, ZPullError
from zchunked.oci.quoting import safe_line

_CLOSED = "standard output is closed, and the result has to go there"


def main() -> None:
    """The console script. Ends the process."""
    # Closed by whoever started us: `print` would say nothing then, or write to the other one.
    sys.stdout = sys.stdout or _Closed()
    sys.stderr = sys.stderr or io.StringIO()
    code = run(sys.argv[1:])
    for out in (sys.stdout, sys.stderr):  # a failure has printed a receipt too
        with contextlib.suppress(OSError):
            out.flush()
    # A worker that hangs in a system call must not hold the exit: everything is on the disk.
    os._exit(code)


def run(argv: list[str]) -> int:
    """One command; returns its exit code. The only place where errors become text."""
    try:
        return _done(argv)
    except ZPullError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        return _fail("the reader of standard output went away", 8)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command to resume", 130)
    except MemoryError:
        return _fail("out of memory", 8)
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 8)
    except Exception as error:
        if os.environ.get("ZPULL_DEBUG"):
            raise
        return _fail(
            f"unexpected {type(error).__name__}: {str(error)[:300]}; this is a bug, ZPULL_DEBUG=1 shows where", 1
        )


def _done(argv: list[str]) -> int:
    """Run to the end; a result that could not be written is a failure."""
    from zchunked.cli import parser as arguments  # noqa: PLC0415

    try:
        code = arguments.dispatch(argv, os.environ)
    except SystemExit as ended:  # argparse has said its piece
        code = ended.code if isinstance(ended.code, int) else 2
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise LocalError(f"cannot write the result to standard output: {error.strerror or error}") from error
    return code


class _Closed(io.TextIOBase):
    """Standard output that is closed: who writes there fails, whatever the verb."""

    _is_lost = False

    def write(self, _: str, /) -> int:
        self._is_lost = True
        raise OSError(errno.EBADF, _CLOSED)

    def flush(self) -> None:
        if self._is_lost:  # argparse does not mind when it cannot write
            raise OSError(errno.EBADF, _CLOSED)

    @property
    def buffer(self) -> NoReturn:
        raise OSError(errno.EBADF, _CLOSED)


def _fail(text: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"zpull: error: {safe_line(' '.join(text.split()))}", file=sys.stderr, flush=True)
    return code
