"""Fail any call that changes files below a folder with any errno, in a real process: a library put
before libc.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path

from tests.helpers.harness.command import ARGV, Ended, environment

SOURCE = Path(__file__).with_name("errno_shim.c")


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


class Injector:
    """Compiled into `folder` once."""

    def __init__(self, folder: Path) -> None:
        self._library, self._counter = folder / "errno_shim.so", folder / "calls"
        found = compiler()
        assert found
        subprocess.run([found, "-shared", "-fPIC", "-o", self._library, SOURCE, "-ldl"], check=True)

    def run(
        self,
        home: Path,
        *args: str,
        code: int = 0,
        at: int = 0,
        once: bool = False,
        below: Path | None = None,
        given: str | None = None,
    ) -> tuple[Ended, int]:
        """A command of which calls fail from the `at`'th one on; 0: none does. Returns how many
        were made, too. Calls count `below` that folder (the store); `given` is a file for stdin.
        """
        self._counter.write_bytes(bytes(8))
        extra = {
            "LD_PRELOAD": str(self._library),
            "INJECT_ROOT": str(below or home / "store"),
            "INJECT_COUNTER": str(self._counter),
            "INJECT_AT": str(at),
            "INJECT_ERRNO": str(code),
        } | ({"INJECT_ONCE": "1"} if once else {})
        with Path(given or "/dev/null").open("rb") as stdin:
            done = subprocess.run(
                [*ARGV, *args],
                env=environment(home, extra),
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        return Ended(done.returncode, done.stdout, done.stderr), int.from_bytes(
            self._counter.read_bytes(), "little"
        )


CODES = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EROFS", "EMFILE", "EDQUOT")}
