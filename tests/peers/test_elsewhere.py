"""Engines elsewhere than where root's are: rootless podman, and sockets that variables name."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.helpers.build.golden import Golden
from tests.helpers.harness.command import ARGV, environment, receipt, zpull
from tests.helpers.servers import engines, peers
from tests.helpers.servers.proxy import pump
from tests.helpers.servers.registry import Registry

pytestmark = pytest.mark.peer
GZIP, V1 = Golden("demo", "plain-gzip"), Golden("demo", "demo-v1")
NOBODY = "65534"
# The tests' interpreter may lie in root's home: zpull may read all, podman may not.
_UNPRIVILEGED = (
    "setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups",
    "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search",
)  # fmt: skip
_PODMAN = """\
#!/bin/sh
exec setpriv --inh-caps=-all --ambient-caps=-all {podman} \
  --cgroup-manager cgroupfs --events-backend none "$@"
"""


@pytest.fixture
def user() -> Iterator[dict[str, str]]:
    """The environment of a user without privileges, who has a podman of their own."""
    peers.require("podman", "setpriv")
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    home = Path(tempfile.mkdtemp(prefix="zpull-rootless-"))
    program = home / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(_PODMAN.format(podman=shutil.which("podman")))
    program.chmod(0o755)
    (home / "run").mkdir(mode=0o700)
    conf = home / ".config" / "containers" / "storage.conf"
    conf.parent.mkdir(parents=True)
    # without lines in /etc/subuid there is one user in its namespace, who owns all
    conf.write_text(
        '[storage]\ndriver = "vfs"\n[storage.options.vfs]\nignore_chown_errors = "true"\n'
    )
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(home)], check=True)
    env = {
        **environment(home),
        "HOME": str(home),
        "XDG_RUNTIME_DIR": f"{home}/run",
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
    }
    try:
        said = as_user(
            env, "podman", "info", "--format", "{{.Host.Security.Rootless}}", check=False
        )
        if said.returncode:
            reason = f"podman cannot run rootless here: {said.stderr.strip()[-300:]}"
            if os.environ.get("ZPULL_REQUIRE_PEERS") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        assert said.stdout.strip() == "true"
        yield env
    finally:
        as_user(env, "podman", "unshare", "rm", "-rf", f"{home}/.local", check=False)
        shutil.rmtree(home, ignore_errors=True)


def as_user(
    env: dict[str, str], *words: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*_UNPRIVILEGED, *words],
        env=env, cwd=env["HOME"], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert not (check and done.returncode), done.stderr[-2000:]
    return done


def test_rootless_podman_is_given_an_update(user: dict[str, str]) -> None:
    """Into the user's own storage, by the door and by `load`."""
    with Registry(V1.layout) as registry:
        for golden, more in ((GZIP, []), (V1, []), (V1, ["--load"])):
            name = registry.reference(golden.tag)
            to = f"podman:localhost/again:{golden.tag}" if more else "podman:"
            words = [name, "--plain-http", "--to", to, *more, "--format", "json"]
            told = json.loads(as_user(user, *ARGV, *words).stdout)
            assert all(layer["identical"] for layer in told["layers"])
            called = f"localhost/again:{golden.tag}" if more else name
            found = as_user(user, "podman", "image", "inspect", called).stdout
            assert json.loads(found)[0]["Id"] == golden.expect["config"]["digest"][7:]
        assert "zpull-transfer" not in as_user(user, "podman", "images", "--all").stdout
    assert (
        f"{user['HOME']}/.local"
        in as_user(user, "podman", "info", "--format", "{{.Store.GraphRoot}}").stdout
    )


@contextmanager
def podman_service(folder: Path) -> Iterator[tuple[peers.Tool, str]]:
    """A podman that is asked over a socket: itself, and the socket's URL."""
    podman = peers.podman(folder)
    socket = folder / "podman.sock"
    argv = [*podman.argv, "system", "service", "--time", "0", f"unix://{socket}"]
    with subprocess.Popen(argv, env={**peers.environment(), **podman.env}) as process:
        try:
            peers.wait_for(socket.exists, "the socket of podman's service")
            yield podman, f"unix://{socket}"
        finally:
            process.terminate()


def test_a_podman_that_container_host_names(tmp_path: Path) -> None:
    """Its client is remote: the image is loaded over the socket, into the service's storage."""
    with podman_service(tmp_path / "podman") as (podman, url), Registry(V1.layout) as registry:
        env = {"CONTAINER_HOST": url}
        told = receipt(tmp_path, registry.reference("demo-v1"), "--to", "podman:", env=env)
        assert told["exports"] == [{"to": "podman:", "manifest_digest": None}]
        found = json.loads(podman("image", "inspect", registry.reference("demo-v1")))[0]
        assert found["Id"] == V1.expect["config"]["digest"][7:]


@contextmanager
def tcp_to(path: str) -> Iterator[str]:
    """An address on loopback behind which a Unix socket answers."""

    def relay(client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(path)
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield "127.0.0.1:{}".format(*listener.getsockname()[1:])
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def test_a_docker_behind_tcp_is_loaded(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It may run anywhere, so nothing is pulled from our loopback."""
    with (
        engines.docker(tmp_path_factory.mktemp("docker")) as env,
        tcp_to(env["DOCKER_HOST"].removeprefix("unix://")) as address,
        Registry(GZIP.layout) as registry,
    ):
        name = registry.reference("plain-gzip")
        told = receipt(tmp_path, name, "--to", "docker:", env={"DOCKER_HOST": f"tcp://{address}"})
        assert told["exports"] == [{"to": "docker:", "manifest_digest": None}]
        found = engines.run(env, "docker", "image", "inspect", "--format", "{{.Id}}", name)
        assert found.strip() == GZIP.expect["config"]["digest"]


@pytest.mark.parametrize(
    ("engine", "variable"), [("docker", "DOCKER_HOST"), ("podman", "CONTAINER_HOST")]
)
@pytest.mark.parametrize("url", ["unix:///nonexistent/engine.sock", "tcp://127.0.0.1:1"])
def test_a_socket_where_nobody_listens(
    engine: str, variable: str, url: str, tmp_path: Path
) -> None:
    """Is told before anything is fetched."""
    peers.require(engine)
    with Registry(GZIP.layout) as registry:
        words = (registry.reference("plain-gzip"), "--to", f"{engine}:")
        found = zpull(tmp_path, *words, env={variable: url}, check=False)
        assert (found.code, registry.accounts.count()) == (8, 0), found.err
        assert engine in found.err
