"""`zpull convert`: the same image with other layers, whatever it was before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.golden import FIXTURES, Golden
from tests.helpers.build.tar import parse_tar
from tests.helpers.harness import command
from tests.helpers.servers.uploads import UploadRegistry
from zchunked.formats.annotations import locate
from zchunked.formats.frames.decompress import unpacked
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Manifest, parse_document
from zchunked.ranges import ByteRange
from zchunked.store import Store

MARK = "io.github.containers.zstd-chunked.tarsplit-position"


def convert(home: Path, source: str, target: Path, *options: str) -> dict[str, Any]:
    told = command.receipt(home, "convert", source, f"oci:{target}:t", *options)
    image: dict[str, Any] = told["images"][0]
    return told | image | {"manifest_digest": told["manifest_digest"]}


def source_of(golden: Golden) -> str:
    return f"oci:{golden.layout}:{golden.tag}"


def blob(layout: Path, digest: str) -> bytes:
    data = layout.joinpath("blobs", digest.replace(":", "/")).read_bytes()
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    return data


def manifest_of(layout: Path) -> tuple[dict[str, Any], Manifest]:
    [entry] = json.loads((layout / "index.json").read_bytes())["manifests"]
    data = blob(layout, entry["digest"])
    manifest = parse_document(data)
    assert isinstance(manifest, Manifest)
    return json.loads(data), manifest


@pytest.mark.parametrize(
    "name",
    [
        "demo:plain-gzip",
        "demo:plain-tar",
        "demo:plain-zstd",
        "demo:g1-old",
        "edge:empty-layer",
    ],
)
def test_every_kind_of_layer_becomes_one_that_updates_in_parts(name: str, tmp_path: Path) -> None:
    golden = Golden(*name.split(":"))
    told = convert(tmp_path, source_of(golden), tmp_path / "out")
    _, manifest = manifest_of(tmp_path / "out")
    assert manifest.config.digest == golden.expect["config"]["digest"] == told["image_id"]
    for layer, diff_id in zip(manifest.layers, golden.expect["diff_ids"], strict=True):
        assert locate(layer).tarsplit is not None
        tar = b"".join(unpacked([blob(tmp_path / "out", layer.digest)]))
        assert "sha256:" + hashlib.sha256(tar).hexdigest() == diff_id
    assert told["bytes"]["after"] == sum(layer.size for layer in manifest.layers)
    assert all(
        layer["digest"] in {one.digest for one in manifest.layers} for layer in told["layers"]
    )


def test_layers_that_are_zstd_chunked_are_kept_with_the_manifest(tmp_path: Path) -> None:
    golden = Golden("demo", "demo-v1")
    told = convert(tmp_path, source_of(golden), tmp_path / "out")
    assert [layer["outcome"] for layer in told["layers"]] == ["kept", "kept"]
    assert told["manifest_digest"] == golden.expect["manifest"]["digest"]


def test_what_no_toc_can_tell_becomes_plain_zstd_and_says_why(tmp_path: Path) -> None:
    golden = Golden("edge", "edge-nonutf8")
    raw = _gzip_again(golden, tmp_path / "gzip")
    told = convert(tmp_path, f"oci:{raw}", tmp_path / "out")
    assert [layer["outcome"] for layer in told["layers"]] == ["converted", "plain"]
    assert "UTF-8" in told["layers"][1]["reason"]
    _, manifest = manifest_of(tmp_path / "out")
    assert [layer.media_type.rpartition("+")[2] for layer in manifest.layers] == ["zstd", "zstd"]
    assert [MARK in layer.annotations for layer in manifest.layers] == [True, False]
    tar = b"".join(unpacked([blob(tmp_path / "out", manifest.layers[1].digest)]))
    assert "sha256:" + hashlib.sha256(tar).hexdigest() == golden.expect["diff_ids"][1]
    again = convert(tmp_path, f"oci:{raw}", tmp_path / "again")
    assert again["layers"][1]["reason"] == told["layers"][1]["reason"]


def _gzip_again(golden: Golden, folder: Path) -> Path:
    """The image with the layers that old tools make, and a manifest that says more than it must."""
    import gzip  # noqa: PLC0415

    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    document = json.loads(golden.blob(golden.expect["manifest"]["digest"]))
    config = put(golden.blob(document["config"]["digest"])) | {
        "mediaType": document["config"]["mediaType"]
    }
    layers = [
        put(gzip.compress(b"".join(unpacked([golden.blob(layer["digest"])])), mtime=0))
        | {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "annotations": {"who": "me", MARK: "stale"},
        }
        for layer in document["layers"]
    ]
    manifest = {
        "schemaVersion": 2, "mediaType": document["mediaType"], "config": config, "layers": layers,
        "annotations": {"org.opencontainers.image.source": "https://example.test"},
    }  # fmt: skip
    entry = put(json.dumps(manifest).encode()) | {"mediaType": document["mediaType"]}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return folder


def test_annotations_stay_but_those_of_another_compression(tmp_path: Path) -> None:
    raw = _gzip_again(Golden("demo", "demo-v1"), tmp_path / "gzip")
    convert(tmp_path, f"oci:{raw}", tmp_path / "out")
    document, _ = manifest_of(tmp_path / "out")
    assert document["annotations"] == {"org.opencontainers.image.source": "https://example.test"}
    assert all(layer["annotations"]["who"] == "me" for layer in document["layers"])
    assert all(layer["annotations"][MARK] != "stale" for layer in document["layers"])


def test_a_base_that_images_share_is_converted_once(tmp_path: Path) -> None:
    first = convert(tmp_path, source_of(Golden("demo", "plain-gzip")), tmp_path / "out")
    again = convert(tmp_path, source_of(Golden("demo", "plain-zstd")), tmp_path / "again")
    assert {layer["outcome"] for layer in first["layers"]} == {"converted"}
    assert {layer["outcome"] for layer in again["layers"]} == {"remembered"}
    assert [layer["digest"] for layer in first["layers"]] == [
        layer["digest"] for layer in again["layers"]
    ]
    other = convert(
        tmp_path, source_of(Golden("demo", "plain-zstd")), tmp_path / "level", "--level", "9"
    )
    assert {layer["outcome"] for layer in other["layers"]} == {"converted"}


def test_the_same_bytes_in_every_store(tmp_path: Path) -> None:
    source = source_of(Golden("demo", "plain-gzip"))
    digests = {
        convert(tmp_path / name, source, tmp_path / name / "out")["manifest_digest"]
        for name in ("a", "b")
    }
    assert len(digests) == 1


def test_an_archive_on_standard_output(tmp_path: Path) -> None:
    import io  # noqa: PLC0415
    import subprocess  # noqa: PLC0415
    import tarfile  # noqa: PLC0415

    source = source_of(Golden("demo", "plain-gzip"))
    argv = [*command.ARGV, "convert", source, "oci-archive:-"]
    done = subprocess.run(argv, env=command.environment(tmp_path), capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert "index.json" in tar.getnames()
    assert b"oci-archive:-@sha256:" in done.stderr


@pytest.mark.parametrize("words", [("--level", "0"), ("--level", "20"), ("--level", "x")])
def test_levels_that_are_none(words: tuple[str, str], tmp_path: Path) -> None:
    source = f"oci:{FIXTURES}/demo/oci:plain-gzip"
    ended = command.zpull(tmp_path, "convert", source, f"oci:{tmp_path}/out", *words, check=False)
    assert ended.code == 2
    assert not (tmp_path / "out").exists()


def test_an_image_is_converted_into_a_registry(tmp_path: Path) -> None:
    golden = Golden("demo", "multi-platform")
    with UploadRegistry() as registry:
        target = f"{registry.host}/team/app:v1"
        ended = command.zpull(tmp_path, "convert", source_of(golden), target, "--platform", "all")
        assert registry.broken == []
        digest = ended.out.strip().rpartition("@")[2]
        assert registry.manifests["team/app"]["v1"] == registry.manifests["team/app"][digest]
        again = command.zpull(tmp_path, "convert", source_of(golden), target, "--platform", "all")
        assert again.out == ended.out
        told = command.receipt(
            tmp_path, "push", target, f"{registry.host}/team/copy:v1", "--offline=false"
        )
        assert told["push"]["mounted"] == len(registry.blobs["team/copy"])


@pytest.mark.parametrize(
    "target",
    [
        "/no/such/form",
        "oci+https://host/base",
        "somewhere@sha256:" + "0" * 64,
        "docker-archive:-",
        "docker:app",
        "podman:app",
        "containerd:k8s.io/app",
    ],
)
def test_targets_that_are_none(target: str, tmp_path: Path) -> None:
    ended = command.zpull(
        tmp_path, "convert", source_of(Golden("demo", "plain-gzip")), target, check=False
    )
    assert ended.code == 2
    assert ended.out == ""


def test_rewritten_timestamps_give_another_image_and_say_so(tmp_path: Path) -> None:
    golden = Golden("demo", "demo-v1")
    told = convert(
        tmp_path,
        source_of(golden),
        tmp_path / "out",
        "--rewrite-timestamp",
        "1000000000",
        "--normalize",
    )
    assert told["image_id"] != golden.expect["config"]["digest"]
    assert "other diff IDs" in told["notes"][0]
    _, manifest = manifest_of(tmp_path / "out")
    config = json.loads(blob(tmp_path / "out", manifest.config.digest))
    for layer, diff_id in zip(manifest.layers, config["rootfs"]["diff_ids"], strict=True):
        tar = b"".join(unpacked([blob(tmp_path / "out", layer.digest)]))
        assert "sha256:" + hashlib.sha256(tar).hexdigest() == diff_id
        assert all(member.mtime <= 10**18 for member in parse_tar(tar)[0])
    again = convert(
        tmp_path, f"oci:{tmp_path}/out:t", tmp_path / "again", "--rewrite-timestamp", "1000000000"
    )
    assert again["image_id"] == told["image_id"]


def test_what_cannot_be_rewritten_stays_as_it_is(tmp_path: Path) -> None:
    golden = Golden("edge", "edge-nonutf8")
    told = convert(tmp_path, source_of(golden), tmp_path / "out", "--rewrite-timestamp", "5")
    assert [layer["outcome"] for layer in told["layers"]] == ["converted", "plain"]


def test_what_an_update_will_cost(tmp_path: Path) -> None:
    """The truths of the golden pair; its old image comes as gzip, so it is converted to know."""
    newer, golden = Golden("demo", "demo-v2"), Golden("demo", "demo-v1")
    told = convert(tmp_path, source_of(newer), tmp_path / "out", "--against", source_of(golden))
    truth = newer.expect["updates"]["from:demo-v1"]
    changed = newer.expect["layers"][1]["size"]
    cost = told["against"]
    assert cost["before"] == changed
    assert cost["lean"] == truth["ideal_bytes"] - truth.get("whole_layer_bytes", 0)
    assert cost["lean"] < cost["exact"] < changed / 4
    raw = _gzip_again(golden, tmp_path / "gzip")
    ended = command.zpull(
        tmp_path,
        "convert",
        source_of(newer),
        f"oci:{tmp_path}/again",
        "--against",
        f"oci:{raw}",
        "--progress",
        "plain",
    )
    assert "an update from" in ended.err


def test_what_was_collected_meanwhile_is_converted_again(tmp_path: Path) -> None:
    source = source_of(Golden("demo", "plain-gzip"))
    first = convert(tmp_path, source, tmp_path / "out")
    with Store(tmp_path / "store") as store:
        for layer in first["layers"]:
            store.evict(Digest(layer["digest"]), [ByteRange(0, 5)])
    again = convert(tmp_path, source, tmp_path / "again")
    assert {layer["outcome"] for layer in again["layers"]} == {"converted"}
    assert again["manifest_digest"] == first["manifest_digest"]


def test_a_dry_run_says_what_it_would_fetch_and_writes_nothing(tmp_path: Path) -> None:
    source = source_of(Golden("demo", "plain-gzip"))
    told = command.zpull(tmp_path, "convert", source, f"oci:{tmp_path}/out", "--dry-run").out
    assert "a pull fetches" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["demo:plain-gzip", "demo:demo-v1", "edge:edge-nonutf8"])
def test_progress_counts_every_layer_once(name: str, tmp_path: Path) -> None:
    """Layers converted, kept, or read twice since no table of contents can tell of them."""
    golden = Golden(*name.split(":"))
    raw = _gzip_again(golden, tmp_path / "gzip") if name.startswith("edge") else golden.layout
    source = f"oci:{raw}" if name.startswith("edge") else source_of(golden)
    done = command.zpull(tmp_path, "convert", source, f"oci:{tmp_path}/out:t", "--progress", "json")
    events = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    [total] = [one["total_bytes"] for one in events if one["event"] == "converting"]
    assert total == sum(one["bytes"] for one in events if one["event"] == "converted") > 0
    silent = command.zpull(tmp_path / "b", "convert", source, f"oci:{tmp_path}/b/out:t", "-q")
    assert (silent.err, len(silent.out.split())) == ("", 1)
