"""Every engine here, old and new.

It pulls an image and its update through the server, which costs the registry what a pull of ours
costs; it is given them too; and containers made from them run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.build import program
from tests.helpers.build.front import (
    Entry,
    Image,
    Layer,
    chunked_layer,
    gzip_layer,
    image,
    make_tar,
)
from tests.helpers.harness.command import receipt, zpull
from tests.helpers.harness.rough import files
from tests.helpers.servers import engines
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start, start

__all__ = ["start"]
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not program.RUNS_HERE, reason="the program in the images is for x86-64"),
]
TAGS = ("v1", "v2")


def version(tag: str, layer: Callable[[bytes], Layer] = chunked_layer) -> Image:
    """A container made from it prints the tag. Of its second layer little changes."""
    base = make_tar([Entry("show", program.show("/etc/version"), mode=0o755)])
    data = files(1, 60, 10_000) | {"etc/version": f"{tag}\n".encode()}
    return image([gzip_layer(base), layer(make_tar(dict(sorted(data.items()))))])


IMAGES = {tag: version(tag) for tag in TAGS}
GZIP = {tag: version(tag, gzip_layer) for tag in TAGS}


@dataclass(frozen=True)
class RunningEngine:
    """An engine, and how it is talked to."""

    kind: str
    env: dict[str, str]
    pulls: Mapping[str, Image]
    """Images that it can pull: docker before 23 knows no zstd."""

    def pull_through(self, port: int, tag: str, folder: Path) -> str:
        """Have it pull from a server; what it calls the image."""
        if self.kind == "docker":
            name = f"127.0.0.1:{port}/local/demo:{tag}"
            engines.run(self.env, "docker", "pull", "--quiet", name)
            return name
        hosts = folder / "hosts" / "local"
        hosts.mkdir(parents=True, exist_ok=True)
        (hosts / "hosts.toml").write_text(f'[host."http://127.0.0.1:{port}"]\n')
        name = f"local/demo:{tag}"
        engines.run(self.env, "ctr", "images", "pull", "--hosts-dir", str(hosts.parent), name)
        return name

    def output_of(self, name: str, ordinal: str) -> str:
        """What a container made from the image prints."""
        if self.kind == "docker":
            return engines.run(
                self.env, "docker", "run", "--rm", "--network", "none", name, "/show"
            )
        return engines.run(self.env, "ctr", "run", "--rm", name, f"box-{ordinal}", "/show")

    def digest_of(self, name: str) -> str:
        """The image ID in docker, the config's digest; of the manifest in containerd."""
        if self.kind == "docker":
            argv = ("docker", "image", "inspect", "--format", "{{.Id}}", name)
            return engines.run(self.env, *argv).strip()
        listed = engines.run(self.env, "ctr", "images", "ls", f"name=={name}")
        return listed.splitlines()[1].split()[2]

    def expected(self, wanted: Image) -> str:
        return wanted.config_digest if self.kind == "docker" else wanted.digest


@pytest.fixture(
    scope="module", params=["docker old", "docker new", "containerd old", "containerd new"]
)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningEngine]:
    kind, which = request.param.split()
    begin = engines.docker if kind == "docker" else engines.containerd
    with begin(tmp_path_factory.mktemp(kind), which) as env:
        yield RunningEngine(kind, env, GZIP if request.param == "docker old" else IMAGES)


def test_an_update_through_the_server_costs_what_an_exact_pull_costs(
    engine: RunningEngine, start: Start, tmp_path: Path
) -> None:
    with Registry(engine.pulls) as registry:
        for tag in TAGS:
            receipt(tmp_path / "home", registry.reference(tag), "--exact")
        wanted = registry.accounts.blob_bytes
    with Registry(engine.pulls) as registry:
        port = start(registry).port
        for tag in TAGS:
            name = engine.pull_through(port, tag, tmp_path)
            assert engine.digest_of(name) == engine.expected(engine.pulls[tag])
            assert engine.output_of(name, f"through-{tag}") == f"{tag}\n"
        assert registry.accounts.blob_bytes == wanted


def test_containers_run_from_what_it_was_given(engine: RunningEngine, tmp_path: Path) -> None:
    with Registry(IMAGES) as registry:
        for tag, one in IMAGES.items():
            name = registry.reference(tag)
            receipt(tmp_path, name, "--to", f"{engine.kind}:", env=engine.env)
            assert engine.digest_of(name) == engine.expected(one)
            assert engine.output_of(name, f"given-{tag}") == f"{tag}\n"


def test_containers_run_from_converted_images(engine: RunningEngine, tmp_path: Path) -> None:
    with Registry(GZIP) as registry:
        for tag in TAGS:
            zpull(tmp_path, "convert", registry.reference(tag), f"oci:{tmp_path}/converted:{tag}")
    with Registry(tmp_path / "converted") as registry:
        for tag in TAGS:
            name = registry.reference(tag)
            told = receipt(tmp_path, name, "--to", f"{engine.kind}:", env=engine.env)
            assert all(layer["identical"] for layer in told["layers"])
            assert engine.output_of(name, f"converted-{tag}") == f"{tag}\n"
