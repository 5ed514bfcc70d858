"""The command as a user runs it: a process of its own, standard output and errors apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARGV = (sys.executable, "-X", "dev", "-W", "error", "-m", "zchunked")


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str
    raw: bytes = b""
    """What `out` was, where it may be no text."""

    @property
    def receipt(self) -> dict[str, Any]:
        """What `--format json` printed."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def error(self) -> str:
        """The one line that says what went wrong; empty when nothing did."""
        lines = [line for line in self.err.splitlines() if line.startswith("zpull: error: ")]
        assert len(lines) <= 1, self.err
        assert "Traceback" not in self.err, self.err
        return lines[0] if lines else ""


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment without the developer's settings: no credentials, proxies or stores."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LANG", "LC_ALL", "PYTHONPATH")
    }
    return kept | {"HOME": str(home), "ZPULL_STORE": str(home / "store")} | dict(extra or {})


def zpull(
    home: Path,
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    stdin: str = "",
) -> Ended:
    """Run to the end. With `check` a failure fails the test and shows what was said."""
    done = subprocess.run(
        [*ARGV, *map(str, args)],
        env=environment(home, env),
        capture_output=True,
        text=True,
        input=stdin,
        timeout=300,
        check=False,
    )
    ended = Ended(done.returncode, done.stdout, done.stderr)
    assert not check or not ended.code, ended.err
    return ended


def receipt(home: Path, *args: str | Path, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run with `--format json` and return the receipt."""
    return zpull(home, *args, "--format", "json", env=env).receipt
