"""Real engines pull through the server, and are given images.

The registry's own, under the right name.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.build.front import chunked_layer, gzip_layer, image, make_tar
from tests.helpers.build.golden import Golden
from tests.helpers.build.images import read_layout
from tests.helpers.build.layers import LAYER
from tests.helpers.harness.command import ARGV, environment, receipt, zpull
from tests.helpers.harness.pulls import pull
from tests.helpers.harness.rough import files
from tests.helpers.servers import engines, peers
from tests.helpers.servers.faults import on, reset
from tests.helpers.servers.memory import MemorySource
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start, start
from zchunked.errors import LocalError, UsageError
from zchunked.export.engines.engine_commands import Engine
from zchunked.export.engines.engine_names import EngineTarget, parse_engine
from zchunked.options import GapOptions
from zchunked.serve.engine_transfer import deliver
from zchunked.store import Store

__all__ = ["start"]
GZIP, V1 = Golden("demo", "plain-gzip"), Golden("demo", "demo-v1")
CONFIG = str(GZIP.expect["config"]["digest"])
DIGEST = str(GZIP.expect["manifest"]["digest"])


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with engines.docker(tmp_path_factory.mktemp("docker")) as environment:
        yield environment


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with engines.containerd(tmp_path_factory.mktemp("containerd")) as environment:
        yield environment


@pytest.mark.peer
@pytest.mark.parametrize("which", ["old", "new"])
def test_podman_pulls_through_the_server(which: str, start: Start, tmp_path: Path) -> None:
    podman = (
        peers.podman(tmp_path / "podman")
        if which == "old"
        else peers.podman_new(tmp_path / "podman")
    )
    with Registry(V1.layout) as registry:
        served = start(registry)
        name = f"127.0.0.1:{served.port}/local/demo:demo-v1"
        podman("pull", "--quiet", "--tls-verify=false", name)
        assert (
            json.loads(podman("image", "inspect", name))[0]["Id"]
            == V1.expect["config"]["digest"][7:]
        )


@pytest.mark.peer
@pytest.mark.parametrize("load", [False, True])
@pytest.mark.parametrize("kind", ["docker", "containerd"])
def test_an_engine_is_given_an_image(
    kind: str,
    load: bool,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment: dict[str, str] = request.getfixturevalue(kind)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    target = parse_engine(f"{kind}:quay.example/tide/harbour:{'load' if load else 'door'}")
    assert target is not None
    with Store(tmp_path / "store") as store:
        source = MemorySource(read_layout(GZIP.layout), "plain-gzip")
        image = pull(
            source, store, "example.com/demo:plain-gzip", gaps=GapOptions(exact=True)
        ).image
        assert image is not None
        engine = Engine(target)
        engine.check()
        given = deliver(store, image, engine, load=load)
    assert given.manifest_digest == (None if load else DIGEST)
    if kind == "docker":
        listed = engines.run(
            environment,
            "docker",
            "images",
            "--no-trunc",
            "--format",
            "{{.Repository}}:{{.Tag}} {{.ID}}",
        )
        assert f"{target.name} {CONFIG}" in listed
    else:
        listed = engines.run(environment, "ctr", "images", "ls")
        assert f"{target.name} " in listed
    assert "zpull-transfer" not in listed


@pytest.mark.peer
def test_the_command_gives_docker_an_update(docker: dict[str, str], tmp_path: Path) -> None:
    with Registry(V1.layout) as registry:
        for tag in ("plain-gzip", "demo-v1"):
            found = receipt(tmp_path, registry.reference(tag), "--to", "docker:", env=docker)
            # This docker unpacks no zstd: it is given such layers as tars, under another manifest.
            digest = found["manifest_digest"] if tag == "plain-gzip" else None
            assert found["exports"] == [{"to": "docker:", "manifest_digest": digest}]
            assert all(layer["identical"] for layer in found["layers"])
        form = "{{.Repository}}:{{.Tag}} {{.ID}}"
        listed = engines.run(docker, "docker", "images", "--no-trunc", "--format", form)
        assert f"{registry.reference('demo-v1')} {CONFIG}" in listed
        assert "zpull-transfer" not in listed


@pytest.mark.peer
def test_an_image_that_docker_has_is_converted(docker: dict[str, str], tmp_path: Path) -> None:
    with Registry(GZIP.layout) as registry:
        name = registry.reference("plain-gzip")
        engines.run(docker, "docker", "pull", "--quiet", name)
        engines.run(docker, "docker", "tag", name, "tides")
        for number, text in enumerate(["tides", CONFIG, CONFIG[7:19], name]):
            told = receipt(
                tmp_path, "convert", f"docker:{text}", f"oci:{tmp_path}/out{number}:v1", env=docker
            )
            assert told["images"][0]["image_id"] == CONFIG
        gone = zpull(
            tmp_path, "push", "docker:gone", f"{registry.host}/app:v1", env=docker, check=False
        )
        assert (gone.code, "No such image" in gone.err) == (8, True)


@pytest.mark.peer
@pytest.mark.parametrize("which", ["old", "new"])
@pytest.mark.parametrize("has", ["oci", "docker"])
def test_an_image_that_podman_has_is_converted(has: str, which: str, tmp_path: Path) -> None:
    """Its config keeps its digest, whichever kind of manifest it came with."""
    podman = (
        peers.podman(tmp_path / "podman")
        if which == "old"
        else peers.podman_new(tmp_path / "podman")
    )
    if has == "oci":
        with Registry(GZIP.layout) as registry:
            podman("pull", "--quiet", "--tls-verify=false", registry.reference("plain-gzip"))
        config = CONFIG
    else:
        saved = f"docker-archive:{tmp_path}/saved.tar"
        peers.skopeo_old()("copy", f"oci:{GZIP.layout}:plain-gzip", f"{saved}:localhost/other:v1")
        podman("load", "--quiet", "--input", tmp_path / "saved.tar")
        config = f"sha256:{json.loads(podman('image', 'inspect', 'localhost/other:v1'))[0]['Id']}"
    podman("tag", config[7:], "tides")
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    # or it would find itself
    argv = ["/usr/bin/podman" if word == "podman" else word for word in podman.argv]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    program.chmod(0o755)
    env = {**podman.env, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    for number, text in enumerate(["tides", "localhost/tides:latest", config[7:]]):
        told = receipt(
            tmp_path, "convert", f"podman:{text}", f"oci:{tmp_path}/out{number}:v1", env=env
        )
        assert told["images"][0]["image_id"] == config
    gone = zpull(tmp_path, "push", "podman:gone", "registry.invalid/app:v1", env=env, check=False)
    assert (gone.code, "gone" in gone.err) == (8, True)


@pytest.mark.peer
@pytest.mark.parametrize("which", ["old", "new"])
def test_the_command_gives_podman_an_update(which: str, tmp_path: Path) -> None:
    """It has no other name for it, and the registry's own digest."""
    podman = (
        peers.podman(tmp_path / "podman")
        if which == "old"
        else peers.podman_new(tmp_path / "podman")
    )
    env = on_path(podman, tmp_path)
    with Registry(V1.layout) as registry:
        for golden in (GZIP, V1):
            receipt(tmp_path, registry.reference(golden.tag), "--to", "podman:", env=env)
            image = json.loads(podman("image", "inspect", registry.reference(golden.tag)))[0]
            assert image["Id"] == golden.expect["config"]["digest"][7:]
            assert (
                f"{registry.host}/demo@{golden.expect['manifest']['digest']}"
                in image["RepoDigests"]
            )
            assert "zpull-transfer" not in podman("images", "--all", "--digests")
    assert not [*tmp_path.glob("zpull-*")]


@pytest.mark.peer
@pytest.mark.parametrize("which", ["old", "new"])
def test_podman_gets_an_image_over_a_link_on_which_it_gives_up(which: str, tmp_path: Path) -> None:
    """Every connection is reset after 64 KiB."""
    make = peers.podman if which == "old" else peers.podman_new
    podman = make(tmp_path / "podman")
    env = on_path(podman, tmp_path)
    large = image(
        [chunked_layer(make_tar(files(7, 40, 40_000))), gzip_layer(make_tar(files(8, 20, 40_000)))]
    )
    with Registry({"v1": large}, faults=[on("blob", reset(after=64 << 10))]) as registry:
        name = registry.reference("v1")
        with pytest.raises(AssertionError, match="ended with"):
            podman("pull", "--quiet", "--tls-verify=false", name)
        receipt(tmp_path, name, "--to", "podman:", env=env)
        found = json.loads(podman("image", "inspect", name))[0]["Id"]
        assert found == large.config_digest[7:]
        whole = sum(layer.size for layer in large.layers) + len(large.config)
        assert registry.accounts.blob_bytes > whole  # podman's own try
    assert not [*tmp_path.glob("zpull-*")]


def on_path(podman: peers.Tool, folder: Path) -> dict[str, str]:
    """An environment in which `podman` is this one."""
    program = folder / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh\nPATH={os.environ["PATH"]}\nexec {shlex.join(podman.argv)} "$@"\n"""
    )
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return {**podman.env, "PATH": path, "TMPDIR": str(folder)}


@pytest.mark.peer
def test_several_images_go_to_docker_at_once(docker: dict[str, str], tmp_path: Path) -> None:
    """One that is not there fails alone; a kill in the middle leaves no passing name."""
    images = {
        f"v{number}": image(
            [
                gzip_layer(make_tar(files(1, 20, 20_000))),
                gzip_layer(make_tar(files(9 + number, 5, 9000))),
            ]
        )
        for number in range(3)
    }
    form = "{{.Repository}}:{{.Tag}} {{.ID}}"
    listed = partial(engines.run, docker, "docker", "images", "--no-trunc", "--format", form)
    with Registry(images, repository="several", rate=200_000) as registry:
        names = [registry.reference(tag) for tag in (*images, "gone")]
        argv = [*ARGV, *names, "--plain-http", "--to", "docker:"]
        env = {**environment(tmp_path), **docker}
        process = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE)
        peers.wait_for(lambda: registry.accounts.blob_bytes > 50_000, "some bytes")
        process.kill()
        process.communicate()
        peers.wait_for(lambda: "zpull-transfer" not in listed(), "the names to go")
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr
        assert "gone" in done.stderr
        for tag, one in images.items():
            assert f"{registry.reference(tag)} {one.config_digest}" in listed()
        assert "zpull-transfer" not in listed()


@pytest.mark.peer
def test_docker_forgets_the_passing_name_when_zpull_is_killed(
    docker: dict[str, str], tmp_path: Path
) -> None:
    """A shell that outlives it sees to that."""
    with Registry(V1.layout, rate=20_000) as registry:
        words = [registry.reference("demo-v1"), "--plain-http", "--to", "docker:"]
        process = subprocess.Popen(
            [*ARGV, *words], env={**environment(tmp_path), **docker}, stderr=subprocess.PIPE
        )
        peers.wait_for(lambda: registry.accounts.blob_bytes > 5_000, "some bytes")
        process.kill()
        process.communicate()
    listed = partial(engines.run, docker, "docker", "images", "--all", "--digests")
    peers.wait_for(lambda: "zpull-transfer" not in listed(), "the name to go")


def test_destinations_that_are_engines() -> None:
    assert parse_engine("oci:x") is None
    assert parse_engine("docker:") == EngineTarget("docker", None, text="docker:")
    assert parse_engine("podman:app") == EngineTarget(
        "podman", "docker.io/library/app:latest", text="podman:app"
    )
    for text, namespace, name in (
        ("containerd:k8s.io/", "k8s.io", None),
        ("containerd:k8s.io/quay.io/app:v1", "k8s.io", "quay.io/app:v1"),
        ("containerd:quay.io/org/app:v1", "default", "quay.io/org/app:v1"),
        ("containerd:moby/docker.io/library/x:1", "moby", "docker.io/library/x:1"),
    ):
        assert parse_engine(text) == EngineTarget("containerd", name, namespace, text)
    with pytest.raises(UsageError, match="digest"):
        parse_engine("docker:app@sha256:" + "0" * 64)


def test_a_missing_engine_is_named_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LocalError, match="there is no docker on this machine"):
        Engine(EngineTarget("docker", None, text="docker:"))


@pytest.mark.parametrize(
    ("version", "unpacks"),
    [("20.10.24+dfsg1", False), ("23.0.1", True), ("26.1.5+dfsg1", True), ("dev", True)],
)
def test_a_docker_that_knows_no_zstd_is_loaded(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, unpacks: bool
) -> None:
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\n[ "$1" != version ] || echo {version}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    engine = Engine(EngineTarget("docker", None, text="docker:"))
    assert engine.unpacks([f"{LAYER}+gzip", f"{LAYER}+zstd"]) is unpacks
    assert engine.unpacks([LAYER, f"{LAYER}+gzip"])
