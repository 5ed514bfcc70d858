"""`zpull status --watch` on a real terminal.

One table that is drawn anew, as wide as the window, for as long as a pull is under way or nobody
presses Ctrl-C.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.harness.command import ARGV, environment
from tests.helpers.harness.rough import assert_right, large, started
from tests.helpers.servers.registry import Registry

UP = re.compile(r"\x1b\[(\d+)F\x1b\[J")


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, home: Path, *args: str) -> None:
        self._child, self._handle = pty.fork()
        if not self._child:
            os.execve(ARGV[0], [*ARGV, *args], environment(home))
        self.text = ""

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._handle, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._handle, keys.encode())

    def read(self, tables: int = 0, seconds: float = 30) -> bool:
        """Until so many more tables were drawn over others; all of it with none.

        False at its end.
        """
        until, want = time.monotonic() + seconds, len(UP.findall(self.text)) + tables
        while not tables or len(UP.findall(self.text)) < want:
            assert time.monotonic() < until, self.text
            if select.select([self._handle], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._handle, 4096).decode()
                except OSError:  # the other end is closed
                    return False
        return True

    def end(self) -> int:
        self.read()
        os.close(self._handle)
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])

    def rows(self, *, at_end: bool = False) -> list[str]:
        """What stands on the screen; before its end, when the last table was complete."""
        begun = [found.start() for found in UP.finditer(self.text)]
        text = self.text if at_end else self.text[: begun[-1]]
        first, *others = re.split(r"(?=\x1b\[)", text.replace("\x1b[J", ""))
        rows = first.split("\r\n")
        for part in others:
            found = re.match(r"\x1b\[(\d+)F", part)
            assert found, part
            assert rows[-1] == "", "it begins at the beginning of a row"
            del rows[-1 - int(found[1]) :]
            rows += part[found.end() :].split("\r\n")
        return rows


@contextmanager
def slow_pull(home: Path) -> Iterator[tuple[Registry, Terminal]]:
    """One that does not end before its link gets faster, and somebody who watches."""
    with Registry({"big": large()}, rate=20_000) as registry:
        with started(home, registry.reference("big")) as process:
            while registry.accounts.blob_bytes < 2000 and process.poll() is None:
                time.sleep(0.02)
            yield registry, Terminal(home, "status", "--watch")
            registry.wire._rate = None
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        assert_right(home, registry, "big")


def test_one_table_is_drawn_anew_until_the_pull_ends(tmp_path: Path) -> None:
    with slow_pull(tmp_path) as (registry, watch):
        watch.resize(200, 24)
        assert watch.read(tables=2)
        rows = watch.rows()
        assert len(rows) == 1 + len(large().layers) + 1, rows
        assert rows[0].startswith(registry.reference("big"))
        assert "under way" in rows[0]
        watch.resize(30, 3)
        assert watch.read(tables=3)
        rows = watch.rows()
        assert max(map(len, rows)) < 30
        assert len(rows) == 3, "no more than the window has"
        registry.wire._rate = None
        assert watch.end() == 0
        assert watch.rows(at_end=True)[-2:] == ["no pull is under way or was interrupted", ""]


def test_ctrl_c_leaves_and_the_pull_goes_on(tmp_path: Path) -> None:
    with slow_pull(tmp_path) as (_, watch):
        watch.resize(200, 24)
        assert watch.read(tables=1)
        watch.type("\x03")
        assert watch.end() == 130
        last = watch.rows(at_end=True)[-2:]
        assert last[0].endswith("zpull: error: interrupted; the pulls that were watched go on")
        assert last[1] == ""
        assert "Traceback" not in watch.text
