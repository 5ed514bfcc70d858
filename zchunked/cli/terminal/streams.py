"""Standard streams as found: closed, full, without a reader, or with a limited encoding."""

from __future__ import annotations

import codecs
import errno
import os
import sys
import warnings
from contextlib import suppress
from io import BufferedWriter, RawIOBase, TextIOWrapper

_UNWRITABLE = "zpull-unwritable"
_CLOSED = "it is closed"


class _Forgiving(TextIOWrapper):
    """Standard error: what cannot be said there ends no pull."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            super().flush()


class _Result(TextIOWrapper):
    """Standard output; an error of it says so."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            error.filename = "standard output"
            raise


class _Closed(RawIOBase):
    """Standard output that was closed: writing a result to it fails, as it would be lost."""

    def fileno(self) -> int:
        return 1

    def writable(self) -> bool:
        return True

    def write(self, _: object, /) -> int:
        raise OSError(errno.EBADF, _CLOSED)


def prepare() -> None:
    """Call once, before opening files: a file with a closed stream's number would be written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _reserve(number)
    codecs.register_error(_UNWRITABLE, _unwritable)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = TextIOWrapper(BufferedWriter(_Closed()), encoding="utf-8", errors=_UNWRITABLE)
    elif isinstance(sys.stdout, TextIOWrapper):
        sys.stdout = _Result(
            open(1, "wb", closefd=False),  # noqa: SIM115
            encoding=sys.stdout.encoding,
            errors=_UNWRITABLE,
            line_buffering=sys.stdout.line_buffering,
        )
    encoding = sys.stderr.encoding if sys.stderr is not None else "utf-8"
    raw = open(2, "wb", buffering=0, closefd=False)  # noqa: SIM115
    sys.stderr = _Forgiving(raw, encoding=encoding, errors=_UNWRITABLE, write_through=True)
    # a library that dislikes the clock of this machine tells developers, not users
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if os.environ.get("HOME") == "":
        # then the passwd file is asked; an empty one would mean the root folder
        del os.environ["HOME"]


def _reserve(number: int) -> None:
    """Replace a closed stream by one that reads as empty, or, for results, refuses writes."""
    mode = os.O_WRONLY if number == 2 else os.O_RDONLY
    opened = os.open(os.devnull, mode)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def _unwritable(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Bytes of a path as they were, letters that the encoding lacks as `\u2026`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def lost_output() -> str | None:
    """Why what was printed did not arrive, once all of it was; None when it did."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return "its reader went away"
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None
