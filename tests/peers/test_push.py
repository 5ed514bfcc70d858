"""Real registries of several makers take what `zpull push` sends: whole, resumed after a kill, and
mounted.

Debian's docker-registry is installed; the others (distribution 3, crane's, olareg) are used where
they are on the PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.harness import command
from tests.helpers.servers import peers
from tests.peers import corpus

pytestmark = pytest.mark.peer
MiB = 1 << 20
_WHERE = {
    "registry": "github.com/distribution/distribution/v3/cmd/registry",
    "crane": "github.com/google/go-containerregistry/cmd/crane",
    "olareg": "github.com/olareg/olareg/cmd/olareg",
}


@contextmanager
def _debians(folder: Path) -> Iterator[str]:
    with peers.docker_registry(folder) as server:
        yield server.host


def _other(program: str, *words: str) -> Callable[[Path], Iterator[str]]:
    """A registry that is told its port; `{port}` and `{folder}` stand for it and for where it may
    write.
    """

    def serve(folder: Path) -> Iterator[str]:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on the PATH: go install {_WHERE[program]}@latest")
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
        argv = [program, *(word.format(port=port, folder=folder) for word in words)]
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
    "olareg": contextmanager(_other("olareg", "serve", "--dir", "{folder}", "--port", "{port}")),
}


@pytest.fixture(params=REGISTRIES)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with REGISTRIES[request.param](tmp_path / "server") as found:
        yield found


def test_an_image_is_pushed_resumed_and_mounted(host: str, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    corpus.layout(
        noise, {"t": [corpus.tar({"noise": os.urandom(24 * MiB)}), corpus.tar({"small": b"x"})]}
    )
    home, target = tmp_path / "home", f"{host}/team/app:v1"
    argv = [
        *command.ARGV,
        "push",
        f"oci:{noise}:t",
        target,
        "--limit-rate",
        "8M",
        "--progress",
        "json",
    ]
    with subprocess.Popen(
        argv, env=command.environment(home), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        arrived = 0
        for line in process.stderr:
            found = re.search(r'"bytes": ?([0-9]+)', line) if "arrived" in line.lower() else None
            arrived += int(found[1]) if found else 0
            if arrived > 6 * MiB:
                break
        process.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    told = command.receipt(home, "push", f"oci:{noise}:t", target)
    assert told["push"]["sent"] <= 25 * MiB
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
