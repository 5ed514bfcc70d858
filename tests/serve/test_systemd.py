"""systemd hands over a socket, and is told when the server is ready and when it stops."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.helpers.harness.command import ARGV, environment
from tests.serve.test_restart import get


def activated(home: Path, listener: socket.socket, **environ: str) -> subprocess.Popen[bytes]:
    """The server as systemd starts it: with a socket as descriptor 3."""
    begin = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    number = listener.fileno()
    return subprocess.Popen(
        ["/bin/sh", "-c", begin, "sh", *ARGV, "serve", "-q"],
        env={**environment(home), **environ},
        stderr=subprocess.PIPE,
        pass_fds=(3,),
        preexec_fn=lambda: os.dup2(number, 3),  # noqa: PLW1509 - no thread runs here
    )


def test_it_serves_on_the_socket_that_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        told.bind(str(path))
        told.settimeout(30)
        port = listener.getsockname()[1]
        with activated(tmp_path, listener, NOTIFY_SOCKET=str(path)) as process:
            assert process.stderr
            assert f"serving http://127.0.0.1:{port} ".encode() in process.stderr.readline()
            assert told.recv(100) == b"READY=1"
            assert get(port, "/healthz") == b"ok\n"
            process.terminate()
            assert told.recv(100) == b"STOPPING=1"
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("family", "address", "said"),
    [
        (socket.AF_INET, ("0.0.0.0", 0), b"can be reached by other machines"),
        (socket.AF_UNIX, "socket", b"expected ListenStream=ADDRESS:PORT"),
    ],
)
def test_a_socket_that_others_reach_is_refused(
    family: int, address: str | tuple[str, int], said: bytes, tmp_path: Path
) -> None:
    """As `--listen` is, and one that engines cannot use."""
    with socket.socket(family) as listener:
        listener.bind(str(tmp_path / address) if isinstance(address, str) else address)
        listener.listen()
        with activated(tmp_path, listener) as process:
            told = process.communicate(timeout=60)[1]
        assert process.returncode in (2, 5, 8)
        assert said in told
        assert b"Traceback" not in told
