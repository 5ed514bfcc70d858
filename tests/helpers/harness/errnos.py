"""Fail any call that changes files below a folder with any errno, by a preloaded library."""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Self

from tests.helpers.harness.command import Ended
from tests.helpers.harness.forked import Forks, Run

SOURCE = Path(__file__).with_name("errno_shim.c")
CODES = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EROFS", "EMFILE", "EDQUOT")}
_CONTROL = struct.Struct("<5q4096s")
_COMMANDS = ("pull", "stored", "keeping", "status")
_WORK = ("maintenance.gc", "maintenance.verify", "export.write", "export.images.archives")


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


class Injector:
    """Compiled into `folder` once; its commands are forks of one process, ended with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder, library, self._control = folder, folder / "shim.so", folder / "control"
        found = compiler()
        assert found
        subprocess.run([found, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        self._set(Path())
        self._forks = Forks(
            *(f"cli.commands.{name}" for name in _COMMANDS),
            *_WORK,
            python=("-X", "dev", "-W", "error"),
            env={"LD_PRELOAD": str(library), "INJECT_CONTROL": str(self._control)},
        )

    def _set(self, root: Path, *numbers: int) -> None:
        text = _CONTROL.pack(0, *(numbers or (0, 0, 0, 0)), bytes(root) if numbers else b"")
        with self._control.open("r+b" if self._control.exists() else "wb") as file:
            file.write(text)

    def run(
        self,
        home: Path,
        *args: str,
        code: int = 0,
        at: int = 0,
        once: bool = False,
        reads: bool = False,
        below: Path | None = None,
        given: str = "/dev/null",
    ) -> tuple[Ended, int]:
        """Run a command whose calls fail from the `at`'th on (0: none); counts the calls made.

        Calls count `below` that folder (the home), those that read with `reads`; `given` is a file
        for stdin.
        """
        self._set(below or home, at, code, once, reads)
        cost = self._forks.run(Run([*args], str(home), given, str(self._folder)))
        calls, *_ = struct.unpack_from("<q", self._control.read_bytes())
        self._set(Path())
        out, err = ((self._folder / name).read_bytes() for name in ("out", "err"))
        text, said = (data.decode(errors="replace") for data in (out, err))
        return Ended(cost.code, text, said, out), calls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._forks.__exit__(*error)
