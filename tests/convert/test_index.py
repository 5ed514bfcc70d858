"""`zpull convert --platform all` and `--add`: the index that is made."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.convert.test_command import MARK, blob, source_of
from tests.helpers.build.golden import Golden
from tests.helpers.harness import command


def test_all_platforms_make_an_index_that_tools_with_zstd_prefer(tmp_path: Path) -> None:
    golden = Golden("demo", "multi-platform-mixed")
    target = tmp_path / "out"
    told = command.receipt(
        tmp_path, "convert", source_of(golden), f"oci:{target}:t", "--platform", "all"
    )
    [entry] = json.loads((target / "index.json").read_bytes())["manifests"]
    index = json.loads(blob(target, entry["digest"]))
    assert entry["digest"] == told["manifest_digest"]
    assert entry["mediaType"] == index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert {one["platform"]["architecture"] for one in index["manifests"]} == {"amd64", "arm64"}
    for one in index["manifests"]:
        assert one["annotations"]["io.github.containers.compression.zstd"] == "true"
        for layer in json.loads(blob(target, one["digest"]))["layers"]:
            assert MARK in layer["annotations"]
            blob(target, layer["digest"])
    attestation = json.loads(golden.blob(golden.expect["index"]["digest"]))["manifests"][0]
    subject = attestation["annotations"]["vnd.docker.reference.digest"]
    amd64 = next(one for one in index["manifests"] if one["platform"]["architecture"] == "amd64")
    [note] = told["notes"]
    words = f"attestation {attestation['digest']} is left out: its subject {subject} is "
    assert note == f"{words}{amd64['digest']} now"


def index_of(layout: Path) -> list[dict[str, Any]]:
    """What the one index of the layout lists; all of it is there."""
    [entry] = json.loads((layout / "index.json").read_bytes())["manifests"]
    listed: list[dict[str, Any]] = json.loads(blob(layout, entry["digest"]))["manifests"]
    for one in listed:
        document = json.loads(blob(layout, one["digest"]))
        for found in (document["config"], *document["layers"]):
            blob(layout, found["digest"])
    return listed


def is_marked(entry: dict[str, Any]) -> bool:
    annotations: dict[str, str] = entry.get("annotations") or {}
    return annotations.get("io.github.containers.compression.zstd") == "true"


@pytest.mark.parametrize("name", ["multi-platform", "multi-platform-mixed"])
def test_an_index_with_both_kinds_keeps_both(name: str, tmp_path: Path) -> None:
    """Its old instances, and attestations of those; twice the same, so it can be done in place."""
    golden = Golden("demo", name)
    old = json.loads(golden.blob(golden.expect["index"]["digest"]))["manifests"]
    words = ("--platform", "all", "--add")
    command.zpull(tmp_path, "convert", source_of(golden), f"oci:{tmp_path}/out:t", *words)
    new = index_of(tmp_path / "out")
    plain = {one["digest"] for one in old if not is_marked(one)}
    assert plain == {one["digest"] for one in new if not is_marked(one)}
    for marked in filter(is_marked, new):
        twins = [one for one in new if one.get("platform") == marked["platform"]]
        assert [is_marked(one) for one in twins] == [False, True]
    command.zpull(tmp_path, "convert", f"oci:{tmp_path}/out:t", f"oci:{tmp_path}/again:t", *words)
    assert index_of(tmp_path / "again") == new


def test_all_platforms_of_one_manifest_are_an_index_of_one(tmp_path: Path) -> None:
    golden = Golden("demo", "plain-gzip")
    command.zpull(
        tmp_path, "convert", source_of(golden), f"oci:{tmp_path}/out:t", "--platform", "all"
    )
    [one] = index_of(tmp_path / "out")
    assert is_marked(one)
    assert one["platform"] == {"architecture": "amd64", "os": "linux"}


def test_images_that_say_nothing_of_their_platform_are_converted_too(tmp_path: Path) -> None:
    """As well as several of one platform, which differ in what no platform says here.

    An entry that is no image at all stays.
    """
    golden = Golden("demo", "multi-platform-mixed")
    attestation, amd64, arm64, _ = json.loads(golden.blob(golden.expect["index"]["digest"]))[
        "manifests"
    ]
    attestation.pop("annotations")
    for one, version in ((amd64, "10.0.1"), (arm64, "10.0.2")):
        one["platform"] = {"os": "linux", "architecture": "riscv64", "os.version": version}
    other = Golden("demo", "plain-tar").expect["manifest"]
    silent = {"mediaType": other["media_type"], "digest": other["digest"], "size": other["size"]}
    listed = [attestation, amd64, arm64, silent, silent]
    source = with_index(golden, listed, tmp_path / "source")
    told = command.receipt(
        tmp_path, "convert", f"oci:{source}", f"oci:{tmp_path}/out:t", "--platform", "all"
    )
    new = index_of(tmp_path / "out")
    assert [is_marked(one) for one in new] == [True, True, True, False]
    assert [one["platform"].get("os.version") for one in new[:2]] == ["10.0.1", "10.0.2"]
    assert new[3] == attestation
    assert len(told["images"]) == 3


def with_index(golden: Golden, listed: list[dict[str, Any]], folder: Path) -> Path:
    """The layout with another index."""
    shutil.copytree(golden.layout, folder)
    data = json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
        | {"manifests": listed}
    ).encode()
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(data)
    entry = {"mediaType": "application/vnd.oci.image.index.v1+json", "size": len(data)}
    entry["digest"] = f"sha256:{digest}"
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


def test_old_instances_stay_for_tools_that_know_no_zstd(tmp_path: Path) -> None:
    golden = Golden("demo", "plain-gzip")
    target = tmp_path / "out"
    told = command.receipt(tmp_path, "convert", source_of(golden), f"oci:{target}:t", "--add")
    [entry] = json.loads((target / "index.json").read_bytes())["manifests"]
    old, new = json.loads(blob(target, entry["digest"]))["manifests"]
    assert old["digest"] == golden.expect["manifest"]["digest"]
    assert "annotations" not in old
    assert new["digest"] == told["images"][0]["manifest_digest"]
    assert old["platform"] == new["platform"]
    for one in (old, new):
        for layer in json.loads(blob(target, one["digest"]))["layers"]:
            blob(target, layer["digest"])
    archive = command.zpull(
        tmp_path, "convert", source_of(golden), f"oci-archive:{tmp_path}/a.tar", "--add"
    )
    assert archive.out.rpartition("@")[2].strip() == told["manifest_digest"]
