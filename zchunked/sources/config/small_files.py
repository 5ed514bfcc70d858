"""Read small files of the user's: whole, or not at all."""

from __future__ import annotations

from pathlib import Path

from zchunked.errors import LocalError, UsageError
from zchunked.local.paths import is_there

_MOST_BYTES = 4 << 20


def contents_of(path: Path, what: str) -> bytes | None:
    """Read a small file, None if absent. `what` names it in the message if too large."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise LocalError(f"invalid {what} {path}: expected at most {_MOST_BYTES} bytes")
    return data


def check_authfile(path: Path) -> None:
    """Raises UsageError where this file is absent, LocalError where it may not be looked at."""
    try:
        if is_there(path):
            return
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from error
    raise UsageError(f"{path}: there is no such file of credentials")
