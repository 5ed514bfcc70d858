"""Real engines, as root: dockerd and containerd with sockets and folders of their own."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.helpers.servers import peers


def _require_root() -> None:
    if os.geteuid():
        if os.environ.get("ZPULL_REQUIRE_PEERS") == "1":
            pytest.fail("an engine of its own needs root")
        pytest.skip("an engine of its own needs root")


Which = Literal["old", "new"]
"""This Debian's, or trixie's."""


@contextmanager
def docker(
    folder: Path, which: Which = "old", config: Path | None = None
) -> Iterator[dict[str, str]]:
    """Debian's docker (20.10) or trixie's (26.1); the environment in which `docker` finds it.

    `config`: its daemon.json.
    """
    run = _found(which, "dockerd", "docker")
    folder.mkdir(parents=True, exist_ok=True)
    socket = f"unix://{folder}/docker.sock"
    argv = [
        *run, "dockerd", "--iptables=false", "--bridge=none", "--storage-driver=vfs", "-H", socket,
        "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile",
            f"{folder}/pid",
    ]  # fmt: skip
    if config is None:  # the machine's own is not meant, and docker 20.10 wants an object
        config = folder / "daemon.json"
        config.write_text("{}")
    argv += ["--config-file", str(config)]
    environment = {"DOCKER_HOST": socket, **_client(folder, run, "docker")}
    with _running(argv, folder, ["docker", "version"], environment):
        yield environment


@contextmanager
def containerd(folder: Path, which: Which = "old") -> Iterator[dict[str, str]]:
    """Debian's containerd (1.6) or trixie's (1.7); the environment in which `ctr` finds it."""
    run = _found(which, "containerd", "ctr", "runc")
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "config.toml"
    conf.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{folder}/ctd.sock"\n'
    )
    environment = {
        "CONTAINERD_ADDRESS": f"{folder}/ctd.sock",
        "CONTAINERD_SNAPSHOTTER": "native",
        **_client(folder, run, "ctr"),
    }
    with _running([*run, "containerd", "-c", str(conf)], folder, ["ctr", "version"], environment):
        yield environment


def containerd_config(which: Which, path: Path) -> str:
    """What containerd makes of a configuration file."""
    prefix = _found(which, "containerd")
    return run({}, *prefix, "containerd", "--config", str(path), "config", "dump")


def _found(which: Which, *programs: str) -> tuple[str, ...]:
    """What to write before the engine's commands."""
    peers.require(*(programs if which == "old" else [f"trixie/{name}" for name in programs]))
    _require_root()
    return (str(peers.TRIXIE / "run"),) if which == "new" else ()


def _client(folder: Path, run: tuple[str, ...], name: str) -> dict[str, str]:
    """A PATH on which the engine's client is of the engine's age."""
    if not run:
        return {}
    program = folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(run)} /usr/bin/{name} "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


@contextmanager
def _running(
    argv: list[str], folder: Path, probe: list[str], environment: dict[str, str] | None = None
) -> Iterator[None]:
    env = {**os.environ, **(environment or {})}
    env["PATH"] += f":{peers.SYSTEM_PATH}"
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
