"""What `zpull convert` wrote, read by the tools that it is written for."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.helpers.harness import command
from tests.helpers.servers import peers
from tests.peers import corpus
from tests.peers.conftest import TAGS

pytestmark = pytest.mark.peer


@pytest.fixture
def layout(plain: Path, tmp_path: Path) -> Path:
    """v1 and v2, converted."""
    for tag in TAGS:
        command.zpull(
            tmp_path / "home", "convert", f"oci:{plain}:{tag}", f"oci:{tmp_path}/converted:{tag}"
        )
    return tmp_path / "converted"


def test_skopeo_unpacks_the_same_layers_to_the_same_config(
    layout: Path, plain: Path, tmp_path: Path
) -> None:
    for skopeo in (peers.skopeo_old(), peers.skopeo_new()):
        skopeo("copy", "--dest-decompress", f"oci:{layout}:v2", f"dir:{tmp_path}/plain")
        manifest = json.loads((tmp_path / "plain" / "manifest.json").read_text())
        wanted = corpus.truth(plain, "v2")
        assert manifest["config"]["digest"] == wanted.config_digest
        assert [layer["digest"] for layer in manifest["layers"]] == list(wanted.diff_ids)


def test_skopeo_takes_it_for_zstd_chunked_and_leaves_it_alone(
    layout: Path, registry: peers.Server, tmp_path: Path
) -> None:
    skopeo = peers.skopeo_new()
    target = f"docker://{registry.host}/converted/kept:v1"
    skopeo(
        "copy",
        "--dest-tls-verify=false",
        "--dest-compress-format",
        "zstd:chunked",
        f"oci:{layout}:v1",
        target,
    )
    kept = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", target))
    assert kept["layers"] == json.loads(skopeo("inspect", "--raw", f"oci:{layout}:v1"))["layers"]


def test_podman_updates_it_partially_to_the_same_tree(
    layout: Path, registry: peers.Server, front: peers.Server, plain: Path, tmp_path: Path
) -> None:
    skopeo, podman = peers.skopeo_new(), peers.podman_new(tmp_path / "podman")
    for tag in TAGS:
        target = f"docker://{registry.host}/converted/app:{tag}"
        skopeo(
            "copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{layout}:{tag}", target
        )
    podman("pull", "--tls-verify=false", f"{front.host}/converted/app:v1")
    with front.watched() as hits:
        podman("pull", "--tls-verify=false", f"{front.host}/converted/app:v2")
    blob = json.loads(skopeo("inspect", "--raw", f"oci:{layout}:v2"))["layers"][1]["size"]
    assert sum(hit.sent for hit in hits if hit.is_blob) < blob / 4
    ids = podman("images", "--no-trunc", "--quiet").split()
    assert {corpus.truth(plain, tag).config_digest for tag in TAGS} == {*ids}
    # made anew of the tree and the tar-split that podman keeps
    saved = tmp_path / "saved.tar"
    podman("save", "--output", saved, f"{front.host}/converted/app:v2")
    with tarfile.open(saved) as archive:
        layers = [archive.extractfile(name) for name in saved_layers(archive)]
        digests = [hashlib.sha256(layer.read()).hexdigest() for layer in layers if layer]
    assert [f"sha256:{one}" for one in digests] == list(corpus.truth(plain, "v2").diff_ids)


def saved_layers(archive: tarfile.TarFile) -> list[str]:
    """Their names in what an engine saved, the lowest first."""
    manifest = archive.extractfile("manifest.json")
    assert manifest is not None
    layers: list[str] = json.load(manifest)[0]["Layers"]
    return layers


def test_an_exact_update_of_a_converted_image_costs_what_a_lean_one_needs(
    registry: peers.Server, front: peers.Server, tmp_path: Path
) -> None:
    """Packages got other contents, and no file another size.

    Then the registry's own blob costs no more than chunks and tables of contents do.
    """
    before = corpus.grow(4, 3_000)
    folders = sorted({name.rpartition("/")[0] for name in before})
    moved = {*random.Random(4).sample(folders, len(folders) // 20)}
    after = {
        name: data[::-1] if name.rpartition("/")[0] in moved else data
        for name, data in before.items()
    }
    corpus.layout(tmp_path / "plain", {"v1": [corpus.tar(before)], "v2": [corpus.tar(after)]})
    source, target = f"oci:{tmp_path}/plain", f"{registry.host}/converted/own"
    told = command.receipt(
        tmp_path / "home", "convert", f"{source}:v2", f"{target}:v2", "--against", f"{source}:v1"
    )
    command.zpull(tmp_path / "home", "convert", f"{source}:v1", f"{target}:v1")
    command.zpull(tmp_path / "puller", f"{front.host}/converted/own:v1")
    with front.watched() as hits:
        image = f"{front.host}/converted/own:v2"
        pulled = command.receipt(tmp_path / "puller", "--exact", "--max-gap", "0", image)
    need = told["against"]["lean"]
    assert all(layer["identical"] for layer in pulled["layers"])
    assert need / 2 < sum(hit.sent for hit in hits if hit.is_blob) <= 1.03 * need
    assert need < told["bytes"]["after"] / 4


def test_a_conversion_goes_straight_into_a_registry(
    registry: peers.Server, front: peers.Server, plain: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    for tag in TAGS:
        command.zpull(
            home, "convert", f"oci:{plain}:{tag}", f"{registry.host}/converted/direct:{tag}"
        )
    with registry.watched() as hits:
        told = command.receipt(
            home,
            "push",
            f"{registry.host}/converted/direct:v2",
            f"{registry.host}/converted/copy:v2",
        )
    assert told["push"]["mounted"] == 3
    assert {"PATCH"}.isdisjoint(hit.method for hit in hits)
    podman = peers.podman_new(tmp_path / "podman")
    podman("pull", "--tls-verify=false", f"{front.host}/converted/direct:v1")
    with front.watched() as seen:
        podman("pull", "--tls-verify=false", f"{front.host}/converted/copy:v2")
    whole = sum(layer["size"] for layer in json.loads(_raw(front, "converted/copy:v2"))["layers"])
    assert sum(hit.sent for hit in seen if hit.is_blob) < whole / 4


def _raw(server: peers.Server, image: str) -> str:
    return peers.skopeo_old()(
        "inspect", "--raw", "--tls-verify=false", f"docker://{server.host}/{image}"
    )


def test_push_with_password_over_tls(plain: Path, tmp_path: Path) -> None:
    with peers.docker_registry(tmp_path / "registry", auth=True, tls=True) as server:
        assert server.ca is not None
        certificates = tmp_path / "certificates"
        certificates.mkdir()
        certificates.joinpath("ca.crt").write_bytes(server.ca.read_bytes())
        target = f"{server.host}/closed/app:v1"
        options = ("--cert-dir", certificates, "--creds", f"{peers.USER}:{peers.PASSWORD}")
        command.zpull(tmp_path / "home", "push", f"oci:{plain}:v1", target, *options)
        closed = command.zpull(
            tmp_path / "home",
            "push",
            f"oci:{plain}:v1",
            target,
            "--cert-dir",
            certificates,
            check=False,
        )
        assert closed.code == 4
        command.zpull(tmp_path / "other", target, *options)


def test_what_docker_saves_is_converted_from_standard_input(plain: Path, tmp_path: Path) -> None:
    peers.skopeo_old()(
        "copy", f"oci:{plain}:v1", f"docker-archive:{tmp_path}/saved.tar:localhost/tides:v1"
    )
    with (tmp_path / "saved.tar").open("rb") as saved:
        done = subprocess.run(
            [*command.ARGV, "convert", "docker-archive:-", f"oci:{tmp_path}/out:v1"],
            env=command.environment(tmp_path / "home"), stdin=saved, capture_output=True,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads(peers.skopeo_old()("inspect", "--raw", f"oci:{tmp_path}/out:v1"))
    assert all(
        "io.github.containers.zstd-chunked.tarsplit-position" in one["annotations"]
        for one in manifest["layers"]
    )
