"""Servers that never end.

Heads, bodies and answers without end cost bounded memory, and karma or a bound ends them.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.harness.command import ARGV, environment

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n"
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "headers": (_HEAD, b"X-More: %d\r\n"),
    "one header": (_HEAD + b"X-Long: ", b"x" * 1024),
    "a status line": (b"HTTP/1.1 200 ", b"x" * 1024),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\nX-Number: %d\r\n\r\n"),
    "a chunked body of single bytes": (
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
    ),
    "a chunked body": (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b"%01024d\r\n"),
    "a body without a length": (_HEAD + b"\r\n", b"%01024d"),
    "an error": (b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "nothing that is HTTP": (b"", b"\x16\x03\x01%d"),
}


@contextmanager
def endless(first: bytes, more: bytes, pause: float = 0.0) -> Iterator[str]:
    """A host that answers every connection so."""
    stopping = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(first)
            for number in itertools.count():
                if stopping.is_set():
                    return
                connection.sendall(more % number if b"%" in more else more)
                if pause:
                    stopping.wait(pause)

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            stopping.set()
            server.shutdown(socket.SHUT_RDWR)


def cost_of(home: Path, *arguments: str) -> tuple[int, str, int, float]:
    """Exit code, standard error, peak memory in bytes, and seconds of one command."""
    began = time.monotonic()
    peak = 0
    with (
        (home / "err").open("wb") as err,
        subprocess.Popen(
            [*ARGV, *arguments], env=environment(home), stdout=err, stderr=err
        ) as child,
    ):
        # What wait4 says of memory begins with that of the process we came from, and ours is large.
        while child.poll() is None:
            peak = max(peak, high_water(child.pid))
            time.sleep(0.02)
    text = (home / "err").read_text("utf-8", "replace")
    return child.returncode, text, peak, time.monotonic() - began


def high_water(process: int) -> int:
    """Peak resident bytes since the program was started; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless(name: str, tmp_path: Path) -> None:
    with endless(*ENDLESS[name]) as host:
        options = ("--plain-http", "--patience", "2", "--deadline", "4")
        code, err, memory, seconds = cost_of(tmp_path, f"{host}/app:v1", *options)
    assert code in (5, 7), err
    assert "Traceback" not in err
    assert memory < 150 << 20
    assert seconds < 12


@pytest.mark.timed
def test_a_head_that_dribbles_is_ended_by_our_patience(tmp_path: Path) -> None:
    """Each byte comes before the connection counts as silent; no deadline was asked for."""
    with endless(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", pause=0.3) as host:
        options = ("--plain-http", "--patience", "2")
        code, err, _, seconds = cost_of(tmp_path, f"{host}/app:v1", *options)
    assert code == 5, err
    assert "no byte for" in err
    assert seconds < 18
