"""What `zpull convert` wrote, read by the tools that it is written for."""

from __future__ import annotations

import json
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
        command.zpull(tmp_path / "home", "convert", f"oci:{plain}:{tag}", f"oci:{tmp_path}/converted:{tag}")
    return tmp_path / "converted"


def test_skopeo_unpacks_the_same_layers_to_the_same_config(layout: Path, plain: Path, tmp_path: Path) -> None:
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
    skopeo("copy", "--dest-tls-verify=false", "--dest-compress-format", "zstd:chunked", f"oci:{layout}:v1", target)
    kept = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", target))
    assert kept["layers"] == json.loads(skopeo("inspect", "--raw", f"oci:{layout}:v1"))["layers"]


def test_podman_updates_it_partially_to_the_same_tree(
    layout: Path, registry: peers.Server, front: peers.Server, plain: Path, tmp_path: Path
) -> None:
    skopeo, podman = peers.skopeo_new(), peers.podman_new(tmp_path / "podman")
    for tag in TAGS:
        target = f"docker://{registry.host}/converted/app:{tag}"
        skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{layout}:{tag}", target)
    podman("pull", "--tls-verify=false", f"{front.host}/converted/app:v1")
    with front.watched() as hits:
        podman("pull", "--tls-verify=false", f"{front.host}/converted/app:v2")
    blob = json.loads(skopeo("inspect", "--raw", f"oci:{layout}:v2"))["layers"][1]["size"]
    assert sum(hit.sent for hit in hits if hit.is_blob) < blob / 4
    ids = podman("images", "--no-trunc", "--quiet").split()
    assert {corpus.truth(plain, tag).config_digest for tag in TAGS} == {*ids}


def test_an_update_of_a_converted_image_costs_little(
    layout: Path, registry: peers.Server, front: peers.Server, tmp_path: Path
) -> None:
    skopeo = peers.skopeo_old()
    for tag in TAGS:
        target = f"docker://{registry.host}/converted/own:{tag}"
        skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{layout}:{tag}", target)
    command.zpull(tmp_path / "puller", f"{front.host}/converted/own:v1")
    receipt = command.receipt(tmp_path / "puller", f"{front.host}/converted/own:v2")
    assert receipt["bytes"]["fetched"] < receipt["bytes"]["image"] / 4
