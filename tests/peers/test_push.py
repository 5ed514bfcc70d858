"""Real registries of several makers take what `zpull push` sends.

Whole, resumed after a kill, and mounted.

Debian's docker-registry is installed; distribution 3, crane's and cue-labs' are built by tools.sh.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.harness import command
from tests.helpers.servers import peers
from tests.helpers.servers.proxy import pump
from tests.peers import corpus

pytestmark = pytest.mark.peer
MiB = 1 << 20
_KEEPS_SESSIONS = ("distribution",)  # the others forget one whose chunk broke off


@contextmanager
def _debians(folder: Path) -> Iterator[str]:
    with peers.docker_registry(folder) as server:
        yield server.host


def _other(program: str, *words: str) -> Callable[[Path], Iterator[str]]:
    """A registry that is told its port.

    `{port}` and `{folder}` stand for it and for where it may write.
    """

    def serve(folder: Path) -> Iterator[str]:
        tool = peers.built(program)
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        conf = folder / "config.json"
        storage = {"filesystem": {"rootdirectory": str(folder / "storage")}}
        conf.write_text(
            json.dumps(
                {"version": "0.1", "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}
            )
        )
        argv = [*tool.argv, *(word.format(port=port, folder=folder) for word in words)]
        with (folder / "log").open("w") as log, peers.running(argv, log, log):
            peers.wait_for(lambda: _answers(port), f"an answer of {program}")
            yield f"127.0.0.1:{port}"

    return serve


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


REGISTRIES = {
    "docker-registry": _debians,
    "distribution": contextmanager(_other("registry", "serve", "{folder}/config.json")),
    "crane": contextmanager(_other("crane", "registry", "serve", "--address", "127.0.0.1:{port}")),
    "cue-labs": contextmanager(_other("ocimem", "127.0.0.1:{port}")),
}


@pytest.fixture(params=REGISTRIES)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with REGISTRIES[request.param](tmp_path / "server") as found:
        yield found


@dataclass
class Line:
    """A way to a server on which is counted what is sent to it, headers too."""

    host: str
    sent: int = 0


@contextmanager
def counted(host: str) -> Iterator[Line]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = Line(f"127.0.0.1:{listener.getsockname()[1]}")
        name, _, port = host.partition(":")

        def way(client: socket.socket) -> None:
            with suppress(OSError), client, socket.create_connection((name, int(port))) as server:
                back = threading.Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                while data := client.recv(64 << 10):
                    line.sent += len(data)
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
                back.join()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=way, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield line
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def test_an_image_is_pushed_resumed_and_mounted(
    host: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    noise, size = tmp_path / "noise", 24 * MiB
    corpus.layout(
        noise, {"t": [corpus.tar({"noise": os.urandom(size)}), corpus.tar({"small": b"x"})]}
    )
    home = tmp_path / "home"
    with counted(host) as line:
        target = f"{line.host}/team/app:v1"
        argv = [*command.ARGV, "push", f"oci:{noise}:t", target, "--limit-rate", "8M"]
        with subprocess.Popen(
            argv, env=command.environment(home), stderr=subprocess.DEVNULL
        ) as process:
            peers.wait_for(lambda: line.sent > size // 3, "a third of the image")
            process.send_signal(signal.SIGKILL)
        time.sleep(0.5)
        told = command.receipt(home, "push", f"oci:{noise}:t", target)
        if request.node.callspec.id in _KEEPS_SESSIONS:
            assert told["push"]["resumed_bytes"] > size // 5
            assert line.sent <= 1.05 * size
    target = f"{host}/team/app:v1"
    copied = command.receipt(home, "push", target, f"{host}/team/copy:v2")
    assert (copied["push"]["sent"], copied["push"]["skipped"] + copied["push"]["mounted"]) == (
        0,
        3,
    ), copied
    peers.skopeo_old()(
        "copy", "--src-tls-verify=false", f"docker://{host}/team/copy:v2", f"dir:{tmp_path}/copy"
    )
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    assert manifest["config"]["digest"] == corpus.truth(noise, "t").config_digest
