"""Lock files for file systems without locks: the text of a file tells which process holds it."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from zchunked.errors import LocalError
from zchunked.store.files.disk_errors import local_error

MARK_BYTES = 1 << 10


def boot() -> str:
    """Changes with every start of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def mark() -> bytes:
    """This process: its number, the machine's name and boot."""
    return "\n".join([str(os.getpid()), os.uname().nodename, boot(), ""]).encode()


def has_ended(text: bytes) -> bool:
    """Whether the writer of this is known to be gone: not if it runs on another machine."""
    parts = text.decode(errors="replace").split("\n")
    if len(parts) != 4 or not parts[0].isdigit() or parts[1] != os.uname().nodename:
        return False
    if parts[2] != boot():
        return True
    try:
        os.kill(int(parts[0]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it is another user's, so it runs
        return False
    return False


class OwnerFile:
    """Excludes other processes from creation to `close`; after a kill, until one sees that."""

    def __init__(self, path: Path) -> None:
        """Raises LocalError where another process holds it.

        Does not wait: that may take a whole pull.
        """
        self._path = path
        try:
            while not self._create():
                text = self._holder()
                if text is not None and not (has_ended(text) and self._remove(text)):
                    who = text.decode(errors="replace").split("\n")
                    raise LocalError(
                        f"the store at {path.parent} is in use by process {who[0] or '?'}, and "
                        "its file system has no locks to share it by; run the same command "
                        f"again when that has ended, or remove {path}"
                    )
        except OSError as error:
            raise local_error(error, f"cannot write {path}") from error

    def close(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        try:
            os.write(handle, mark())
        finally:
            os.close(handle)
        return True

    def _holder(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                return file.read(MARK_BYTES)
        except FileNotFoundError:  # it has just ended
            return None

    def _remove(self, text: bytes) -> bool:
        """Remove the text of a process that is gone; False if another one wrote its own."""
        moved = self._path.with_name(f"{self._path.name}.{secrets.token_hex(6)}")
        try:
            self._path.rename(moved)
        except FileNotFoundError:
            return True
        is_same = moved.read_bytes() == text
        if not is_same:
            with suppress(OSError):
                os.link(moved, self._path)
        moved.unlink(missing_ok=True)
        return is_same
