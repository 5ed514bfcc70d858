"""The command: argv and environment in, exit code out. What a verb does lives beside, one file per family of verbs."""

from __future__ import annotations

import contextlib
import os
import sys

from zchunked.errors import ZPullError
from zchunked.oci.quoting import safe_line


def main() -> None:
    """The console script. Ends the process."""
    code = run(sys.argv[1:])
    with contextlib.suppress(OSError):
        for out in (sys.stdout, sys.stderr):
            if out is not None:  # closed by whoever started us
                out.flush()
    # A worker that hangs in a system call must not hold the exit: everything is on the disk.
    os._exit(code)


def run(argv: list[str]) -> int:
    """One command; returns its exit code. The only place where errors become text."""
    from zchunked.cli import parser as arguments  # noqa: PLC0415

    try:
        return arguments.dispatch(argv, os.environ)
    except ZPullError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        return _fail("the reader of standard output went away", 8)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command to resume", 130)
    except SystemExit as ended:  # argparse has said its piece
        return ended.code if isinstance(ended.code, int) else 2
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


def _fail(text: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"zpull: error: {safe_line(' '.join(text.split()))}", file=sys.stderr, flush=True)
    return code
