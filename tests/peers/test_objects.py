"""Seeds, `fetch` and `locate` with a real registry, and layers that a real writer compressed."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers.harness import command
from tests.helpers.servers import peers


@pytest.mark.parametrize("writer", ["new"])  # chunks of layers without a tar-split make no tar
def test_the_older_image_as_a_seed_leaves_the_update(
    writer: str, front: peers.Server, plain: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The layout holds plain tars of v1 and v2.

    A home that pulled v1 is what the seed is compared with.
    """
    repository = request.getfixturevalue(writer)
    layout = json.loads((plain / "index.json").read_bytes())
    layout["manifests"] = layout["manifests"][:1]
    seed = tmp_path / "seed"
    seed.mkdir()
    seed.joinpath("index.json").write_text(json.dumps(layout))
    seed.joinpath("oci-layout").write_bytes((plain / "oci-layout").read_bytes())
    seed.joinpath("blobs").symlink_to(plain / "blobs")
    command.receipt(tmp_path / "one", f"{front.host}/{repository}:v1")
    update = command.receipt(tmp_path / "one", f"{front.host}/{repository}:v2", "--lean")
    with front.watched() as hits:
        seeded = command.receipt(tmp_path / "two", f"{front.host}/{repository}:v2", "--seed", seed)
    assert seeded["bytes"]["needed"] <= update["bytes"]["needed"]
    assert seeded["bytes"]["fetched"] == sum(hit.sent for hit in hits)
    assert seeded["bytes"]["fetched"] < seeded["bytes"]["image"] / 3


def test_objects_of_a_real_registry(front: peers.Server, new: str, tmp_path: Path) -> None:
    def fetch(*words: str) -> bytes:
        argv = [*command.ARGV, "fetch", "-q", f"{front.host}/{new}:v1", *words]
        return subprocess.run(
            argv, env=command.environment(tmp_path), capture_output=True, check=True
        ).stdout

    manifest = json.loads(fetch())
    for one in (manifest["config"], *manifest["layers"]):
        data = fetch(one["digest"])
        assert ("sha256:" + hashlib.sha256(data).hexdigest(), len(data)) == (
            one["digest"],
            one["size"],
        )
    with front.watched() as hits:
        told = json.loads(
            command.zpull(tmp_path, "locate", f"{front.host}/{new}:v1", "--format", "json").out
        )
    assert [one["url"] for one in told] == [
        f"{front.url}/v2/{new}/blobs/{one['digest']}"
        for one in (manifest["config"], *manifest["layers"])
    ]
    assert sum(hit.sent for hit in hits if hit.is_blob) <= len(told)
