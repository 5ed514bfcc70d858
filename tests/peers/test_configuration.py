"""docs/serve.md, step by step.

What `--config-for` prints is written where it says, in a root of the engine's own, and the engine
pulls by the command that the page shows.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.helpers.build.front import Image, gzip_layer, image, make_tar
from tests.helpers.harness.command import zpull
from tests.helpers.harness.rough import files
from tests.helpers.servers import engines, peers
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start, start

__all__ = ["start"]
IMAGE = image([gzip_layer(make_tar(files(1, 10, 5_000)))])


def printed(engine: str, port: int, folder: Path) -> str:
    """What the user is told to write."""
    words = ("serve", "--listen", f"127.0.0.1:{port}", "--config-for", engine)
    return zpull(folder / "home", *words).out


def json_of(text: str) -> dict[str, object]:
    """The document below the comments."""
    found: dict[str, object] = json.loads(
        "".join(line for line in text.splitlines() if not line.startswith("#"))
    )
    return found


@pytest.fixture
def served(start: Start) -> tuple[int, Registry]:
    """A server for which Docker Hub and quay.io are a registry of ours."""
    registry = start.stack.enter_context(Registry({"v1": IMAGE}, repository="library/demo"))
    names = ("docker.io", "quay.io")
    return start(registry, upstreams=dict.fromkeys(names, registry.host)).port, registry


def has_come(registry: Registry, wanted: Image) -> bool:
    """The upstream has sent all of it, once."""
    return registry.accounts.blob_bytes == len(wanted.config) + sum(
        layer.size for layer in wanted.layers
    )


@pytest.mark.peer
@pytest.mark.parametrize("which", ["old", "new"])
def test_docker(which: engines.Which, served: tuple[int, Registry], tmp_path: Path) -> None:
    """As a mirror of Docker Hub, and by the long name."""
    port, registry = served
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps(json_of(printed("docker", port, tmp_path))))
    with engines.docker(tmp_path / "docker", which, config) as env:
        engines.run(env, "docker", "pull", "demo:v1")
        long = f"127.0.0.1:{port}/quay.io/library/demo:v1"
        engines.run(env, "docker", "pull", long)
        for name in ("demo:v1", long):
            found = engines.run(env, "docker", "image", "inspect", "--format", "{{.Id}}", name)
            assert found.strip() == IMAGE.config_digest
    assert has_come(registry, IMAGE)


@pytest.mark.peer
@pytest.mark.parametrize("which", ["old", "new"])
def test_containerd(which: engines.Which, served: tuple[int, Registry], tmp_path: Path) -> None:
    port, registry = served
    hosts = tmp_path / "certs.d" / "_default" / "hosts.toml"
    hosts.parent.mkdir(parents=True)
    hosts.write_text(printed("containerd", port, tmp_path))
    with engines.containerd(tmp_path / "containerd", which) as env:
        for name in ("quay.io/library/demo:v1", "docker.io/library/demo:v1"):
            words = ("image", "pull", "--hosts-dir", str(tmp_path / "certs.d"), name)
            engines.run(env, "ctr", *words)
            assert IMAGE.digest in engines.run(env, "ctr", "images", "ls", f"name=={name}")
    assert has_come(registry, IMAGE)


@pytest.mark.peer
@pytest.mark.parametrize("engine", ["podman", "crio"])
@pytest.mark.parametrize("which", ["old", "new"])
def test_podman_and_what_cri_o_reads_as_podman_does(
    which: engines.Which, engine: str, served: tuple[int, Registry], tmp_path: Path
) -> None:
    port, registry = served
    conf = tmp_path / "registries.conf"
    conf.write_text(printed(engine, port, tmp_path))
    make = peers.podman if which == "old" else peers.podman_new
    podman = make(tmp_path / "podman")
    podman = peers.Tool(podman.argv, {**podman.env, "CONTAINERS_REGISTRIES_CONF": str(conf)})
    for name in ("quay.io/library/demo:v1", "docker.io/library/demo:v1"):
        podman("pull", "--quiet", name)
        assert json.loads(podman("image", "inspect", name))[0]["Id"] == IMAGE.config_digest[7:]
    assert has_come(registry, IMAGE)


@pytest.mark.parametrize(("engine", "key"), [("buildkit", "registry"), ("crio", "registry")])
def test_what_others_read_is_what_they_can_parse(engine: str, key: str, tmp_path: Path) -> None:
    assert tomllib.loads(printed(engine, 5055, tmp_path))[key]


@pytest.mark.peer
@pytest.mark.parametrize("which", ["old", "new"])
def test_the_folder_that_containerds_cri_must_be_told(
    which: engines.Which, served: tuple[int, Registry], tmp_path: Path
) -> None:
    """The lines in the comment are a configuration that containerd itself accepts and dumps."""
    port, _ = served
    text = printed("containerd", port, tmp_path)
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("#   ")]
    conf = tmp_path / "config.toml"
    conf.write_text("version = 2\n" + "\n".join(lines) + "\n")
    dumped = engines.containerd_config(which, conf)
    found = tomllib.loads(dumped)["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    assert found["config_path"] == "/etc/containerd/certs.d"


@pytest.mark.peer
def test_k3s(served: tuple[int, Registry], tmp_path: Path) -> None:
    """Read as YAML; from its endpoints k3s writes a hosts.toml for its containerd, as here."""
    peers.require("perl")
    port, registry = served
    as_json = (
        "-MCPAN::Meta::YAML", "-MJSON::PP", "-e",
        "local $/; print encode_json(CPAN::Meta::YAML->read(shift)->[0])",
    )  # fmt: skip
    conf = tmp_path / "registries.yaml"
    conf.write_text(printed("k3s", port, tmp_path))
    found = json.loads(peers.Tool(("perl",))(*as_json, conf))
    assert found == {"mirrors": {"*": {"endpoint": [f"http://127.0.0.1:{port}"]}}}
    hosts = tmp_path / "certs.d" / "_default" / "hosts.toml"
    hosts.parent.mkdir(parents=True)
    hosts.write_text(
        "".join(
            f'[host."{url}/v2"]\n  capabilities = ["pull", "resolve"]\n'
            for url in found["mirrors"]["*"]["endpoint"]
        )
    )
    with engines.containerd(tmp_path / "containerd", "new") as env:
        words = ("image", "pull", "--hosts-dir", str(tmp_path / "certs.d"))
        engines.run(env, "ctr", *words, "quay.io/library/demo:v1")
        name = "name==quay.io/library/demo:v1"
        assert IMAGE.digest in engines.run(env, "ctr", "images", "ls", name)
    assert has_come(registry, IMAGE)
