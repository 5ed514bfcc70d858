"""Real engines, as root: dockerd and containerd on sockets and folders of their own, without
networks.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.servers import peers


def _require_root() -> None:
    if os.geteuid():
        if os.environ.get("ZPULL_REQUIRE_PEERS") == "1":
            pytest.fail("an engine of its own needs root")
        pytest.skip("an engine of its own needs root")


@contextmanager
def docker(folder: Path) -> Iterator[dict[str, str]]:
    """Debian's docker (20.10); the environment in which `docker` finds it."""
    peers.require("dockerd", "docker")
    _require_root()
    folder.mkdir(parents=True, exist_ok=True)
    socket = f"unix://{folder}/docker.sock"
    argv = [
        "dockerd", "--iptables=false", "--bridge=none", "--storage-driver=vfs", "-H", socket,
        "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile",
            f"{folder}/pid",
    ]  # fmt: skip
    with _running(argv, folder, ["docker", "-H", socket, "version"]):
        yield {"DOCKER_HOST": socket}


@contextmanager
def containerd(folder: Path) -> Iterator[dict[str, str]]:
    """Debian's containerd (1.6); the environment in which `ctr` finds it."""
    peers.require("containerd", "ctr")
    _require_root()
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "config.toml"
    conf.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{folder}/ctd.sock"\n'
    )
    environment = {"CONTAINERD_ADDRESS": f"{folder}/ctd.sock", "CONTAINERD_SNAPSHOTTER": "native"}
    with _running(["containerd", "-c", str(conf)], folder, ["ctr", "version"], environment):
        yield environment


@contextmanager
def _running(
    argv: list[str], folder: Path, probe: list[str], environment: dict[str, str] | None = None
) -> Iterator[None]:
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", **(environment or {})}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=env)
    try:
        end = time.monotonic() + 60
        while subprocess.run(probe, env=env, capture_output=True, check=False).returncode:
            assert time.monotonic() < end, (folder / "log").read_text(errors="replace")[-4000:]
            assert process.poll() is None, (folder / "log").read_text(errors="replace")[-4000:]
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def run(environment: dict[str, str], *argv: str) -> str:
    """A command of the engine; what it printed."""
    done = subprocess.run(
        argv,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout
