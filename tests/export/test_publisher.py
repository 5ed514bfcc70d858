"""Publishing: what is there afterwards, what was sent for it.

No reader ever sees half of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import read_layout
from tests.helpers.build.golden import Golden
from tests.helpers.build.images import Document, image, index
from tests.helpers.build.layers import gzip_layer
from tests.helpers.build.tar import make_tar
from tests.helpers.harness import command
from tests.helpers.servers.bucket import NAME, Bucket
from tests.helpers.servers.registry import Registry

V1, V2 = Golden("demo", "demo-v1"), Golden("demo", "demo-v2")
INDEX = "fleet/app/index.json"
PATIENCE = ("--patience", "0", "--progress", "none")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(V1.layout) as server:
        yield server


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with Bucket() as found:
        yield found


def name_of(registry: Registry, one: Golden) -> str:
    return f"{registry.host}/{registry.repository}:{one.tag}"


def published(
    home: Path, image: str, target: str | Path, *options: str, bucket: Bucket | None = None
) -> dict[str, Any]:
    return command.receipt(
        home, "publish", image, target, *options, env=bucket.environment if bucket else None
    )


def tags(index_json: bytes) -> dict[str, str]:
    entries = json.loads(index_json)["manifests"]
    return {
        entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"]
        for entry in entries
    }


def manifest(one: Golden) -> str:
    return str(one.expect["manifest"]["digest"])


# ── a directory ──


def test_a_directory_holds_the_registrys_own_blobs(registry: Registry, tmp_path: Path) -> None:
    receipt = published(tmp_path, name_of(registry, V1), tmp_path / "out")
    assert receipt["exports"] == [{"to": str(tmp_path / "out"), "manifest_digest": manifest(V1)}]
    layout = read_layout(tmp_path / "out")
    assert layout.tags == {V1.tag: manifest(V1)}
    (entry,) = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}
    spent = receipt["bytes"]
    assert spent["fetched"] == registry.accounts.body_bytes
    assert receipt["requests"] == registry.accounts.count()


def test_what_was_pulled_in_parts_is_completed_with_its_missing_bytes_alone(
    registry: Registry, tmp_path: Path
) -> None:
    command.zpull(tmp_path, name_of(registry, V1))
    pulled = command.receipt(tmp_path, name_of(registry, V2), "--lean")
    assert "partial" in {layer["mode"] for layer in pulled["layers"]}
    receipt = published(tmp_path, name_of(registry, V2), tmp_path / "out")
    whole = sum(
        {
            layer["digest"]: layer["size"]
            for layer in receipt["layers"]
            if layer["mode"] == "partial"
        }.values()
    )
    here = sum({layer["digest"]: layer["cached_bytes"] for layer in receipt["layers"]}.values())
    assert 0 < receipt["bytes"]["fetched"] < whole
    spent = receipt["bytes"]
    assert spent["needed"] + spent["metadata"] + here == sum(
        layer["size"] for layer in receipt["layers"]
    )
    assert spent["wasted"] == 0
    assert read_layout(tmp_path / "out").tags == {V2.tag: manifest(V2)}


def test_an_image_that_is_whole_in_the_store_needs_no_network(
    registry: Registry, tmp_path: Path
) -> None:
    command.zpull(tmp_path, name_of(registry, V1), "--exact")
    before = registry.accounts.count()
    receipt = published(tmp_path, name_of(registry, V1), f"oci:{tmp_path}/out:stable")
    assert (
        registry.accounts.count() - before,
        receipt["requests"],
        receipt["bytes"]["fetched"],
    ) == (0, 0, 0)
    assert receipt["image_id"] == V1.expect["config"]["digest"]
    assert read_layout(tmp_path / "out").tags == {"stable": manifest(V1)}


def test_the_published_directory_can_be_pulled_again(registry: Registry, tmp_path: Path) -> None:
    done = command.zpull(tmp_path, "publish", name_of(registry, V1), tmp_path / "out")
    assert done.out == f"oci:{tmp_path}/out:{V1.tag}@{manifest(V1)}\n"
    assert "sent" in done.err
    receipt = command.receipt(tmp_path / "device", done.out.strip())
    assert [layer["diff_id"] for layer in receipt["layers"]] == V1.expect["diff_ids"]


def test_publishers_to_one_directory_lose_none_of_their_images(
    registry: Registry, tmp_path: Path
) -> None:
    command.zpull(tmp_path, name_of(registry, V1), "--exact")
    argv = [*command.ARGV, "publish", name_of(registry, V1), "-q"]
    runs = [
        subprocess.Popen(
            [*argv, f"{tmp_path}/out:t{number}"],
            env=command.environment(tmp_path),
            stdout=subprocess.PIPE,
        )
        for number in range(4)
    ]
    for run in runs:
        run.communicate()
    assert [run.returncode for run in runs] == [0] * 4
    assert sorted(read_layout(tmp_path / "out").tags) == ["t0", "t1", "t2", "t3"]


def test_a_blob_of_the_wrong_size_is_written_again(registry: Registry, tmp_path: Path) -> None:
    published(tmp_path, name_of(registry, V1), tmp_path / "out")
    blobs = sorted((tmp_path / "out" / "blobs" / "sha256").iterdir())
    blobs[0].write_bytes(b"cut short")
    kept = blobs[1].stat().st_ino
    published(tmp_path, name_of(registry, V1), tmp_path / "out")
    assert read_layout(tmp_path / "out").tags == {V1.tag: manifest(V1)}
    assert blobs[1].stat().st_ino == kept


def test_images_of_two_platforms_share_a_tag(tmp_path: Path) -> None:
    def one(platform: str) -> Document:
        return image([gzip_layer(make_tar({"etc/platform": platform.encode()}))], platform=platform)

    both = {platform: one(platform) for platform in ("linux/amd64", "linux/arm64")}
    with Registry({"v1": index(both.values())}) as registry:
        name = f"{registry.host}/{registry.repository}:v1"
        for platform in (*both, *both):
            published(tmp_path, name, tmp_path / "out", "--platform", platform)
    entries = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert {entry["digest"] for entry in entries} == {document.digest for document in both.values()}
    assert len(entries) == 2
    for platform, document in both.items():
        receipt = command.receipt(
            tmp_path / "device", f"oci:{tmp_path}/out:v1", "--platform", platform
        )
        assert receipt["manifest_digest"] == document.digest


def test_what_the_disk_has_spoilt_is_brought_again(registry: Registry, tmp_path: Path) -> None:
    command.zpull(tmp_path, name_of(registry, V1), "--exact")
    largest = max((tmp_path / "store" / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    receipt = published(tmp_path, name_of(registry, V1), tmp_path / "out")
    assert receipt["bytes"]["fetched"] > 0
    assert read_layout(tmp_path / "out").tags == {V1.tag: manifest(V1)}


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("{there}", 8, "is not an OCI layout"),
        ("registry.example:5000/app:v1", 2, "a registry?"),
        ("docker://registry.example/app:v1", 2, "cannot publish there"),
        ("oci+https://cdn.example/app", 2, "cannot publish there"),
        ("s3://", 2, "bucket"),
        ("s3://tides/app@sha256:" + "0" * 64, 2, "no digest"),
        ("out:not a tag", 2, "cannot be a tag"),
    ],
)
def test_a_target_that_cannot_be_meant_is_refused_before_anything_is_fetched(
    registry: Registry, tmp_path: Path, target: str, code: int, said: str
) -> None:
    there = tmp_path / "thesis"
    there.mkdir()
    (there / "chapter.tex").write_bytes(b"precious")
    done = command.zpull(
        tmp_path,
        "publish",
        name_of(registry, V1),
        target.format(there=there),
        *PATIENCE,
        check=False,
    )
    assert (done.code, said in done.error) == (code, True), done.err
    assert [path.name for path in there.iterdir()] == ["chapter.tex"]
    if code == 2:
        assert registry.accounts.count() == 0


# ── a bucket ──


def test_a_bucket_gets_its_index_last_and_a_device_pulls_it(
    registry: Registry, bucket: Bucket, tmp_path: Path
) -> None:
    receipt = published(tmp_path, name_of(registry, V1), f"s3://{NAME}/fleet/app", bucket=bucket)
    assert receipt["manifest_digest"] == manifest(V1)
    assert bucket.written()[-1] == INDEX
    assert tags(bucket.objects[INDEX]) == {V1.tag: manifest(V1)}
    before = len(bucket.log)
    device = command.receipt(
        tmp_path / "device", f"s3://{NAME}/fleet/app:{V1.tag}", env=bucket.environment
    )
    assert [layer["diff_id"] for layer in device["layers"]] == V1.expect["diff_ids"]
    assert device["requests"] == len(bucket.log) - before


def test_of_an_update_only_new_blobs_go_up_and_only_new_chunks_come_down(
    registry: Registry, bucket: Bucket, tmp_path: Path
) -> None:
    place = f"s3://{NAME}/fleet/app"
    published(tmp_path, name_of(registry, V1), place, bucket=bucket)
    command.zpull(tmp_path / "device", f"{place}:{V1.tag}", env=bucket.environment)
    before = set(bucket.objects)
    bucket.log.clear()
    published(tmp_path, name_of(registry, V2), place, bucket=bucket)
    new = set(bucket.objects) - before
    assert sorted(bucket.written()) == sorted([*new, INDEX])
    assert tags(bucket.objects[INDEX]) == {V1.tag: manifest(V1), V2.tag: manifest(V2)}
    device = command.receipt(tmp_path / "device", f"{place}:{V2.tag}", env=bucket.environment)
    assert device["bytes"]["fetched"] < device["bytes"]["image"] / 4
    bucket.log.clear()
    published(tmp_path, name_of(registry, V2), place, bucket=bucket)
    assert bucket.written() == []


def test_a_publisher_that_fails_leaves_the_index_alone_and_goes_on_where_it_was(
    registry: Registry, bucket: Bucket, tmp_path: Path
) -> None:
    image, place = name_of(registry, V1), f"s3://{NAME}/fleet/app"
    config = V1.expect["config"]["digest"].partition(":")[2]
    bucket.before = lambda method, key: 503 if method == "PUT" and config in key else None
    done = command.zpull(
        tmp_path, "publish", image, place, *PATIENCE, env=bucket.environment, check=False
    )
    assert done.code == 5
    assert "run the same command to resume" in done.error
    assert INDEX not in bucket.objects
    sent = {key for key in bucket.objects if "blobs" in key}
    bucket.before = lambda _method, _key: None
    bucket.log.clear()
    published(tmp_path, image, place, bucket=bucket)
    assert not sent & set(bucket.written())
    assert tags(bucket.objects[INDEX]) == {V1.tag: manifest(V1)}


def test_a_bad_hour_is_survived(registry: Registry, bucket: Bucket, tmp_path: Path) -> None:
    left = {"HEAD": 1, "PUT": 2, "GET": 1}

    def weather(method: str, _: str) -> int | None:
        with bucket.lock:
            left[method] = left.get(method, 0) - 1
            return 503 if left[method] >= 0 else None

    bucket.before = weather
    receipt = published(tmp_path, name_of(registry, V1), f"s3://{NAME}/fleet/app", bucket=bucket)
    assert receipt["exports"]
    assert tags(bucket.objects[INDEX]) == {V1.tag: manifest(V1)}


def test_a_deadline_ends_it(registry: Registry, bucket: Bucket, tmp_path: Path) -> None:
    command.zpull(tmp_path, name_of(registry, V1), "--exact")
    bucket.before = lambda _method, _key: 503
    place = f"s3://{NAME}/x"
    done = command.zpull(
        tmp_path,
        "publish",
        name_of(registry, V1),
        place,
        "--deadline",
        "0.5",
        env=bucket.environment,
        check=False,
    )
    assert (done.code, "deadline" in done.error) == (5, True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("where", ["oci-layout", "blobs", "index.json"])
def test_a_publisher_that_is_killed_leaves_a_good_index_and_goes_on(
    registry: Registry, bucket: Bucket, tmp_path: Path, how: signal.Signals, where: str
) -> None:
    place = f"s3://{NAME}/fleet/app"
    published(tmp_path, name_of(registry, V1), place, bucket=bucket)
    command.zpull(tmp_path, name_of(registry, V2), "--exact")
    del bucket.objects["fleet/app/oci-layout"]
    reached, go_on = threading.Event(), threading.Event()

    def hold(method: str, key: str) -> int | None:
        if method == "PUT" and where in key:
            reached.set()
            go_on.wait(20)
            return 500
        return None

    bucket.before = hold
    env = command.environment(tmp_path, bucket.environment)
    argv = [*command.ARGV, "publish", name_of(registry, V2), place]
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        assert reached.wait(20)
        os.kill(run.pid, how)
        _, err = run.communicate()
    go_on.set()
    assert run.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert b"Traceback" not in err
    assert tags(bucket.objects[INDEX]) == {V1.tag: manifest(V1)}
    bucket.before = lambda _method, _key: None
    published(tmp_path, name_of(registry, V2), place, bucket=bucket)
    assert tags(bucket.objects[INDEX]) == {V1.tag: manifest(V1), V2.tag: manifest(V2)}


def test_no_secret_of_the_bucket_is_ever_shown(
    registry: Registry, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.before = lambda _method, _key: 403
    done = command.zpull(
        tmp_path,
        "publish",
        name_of(registry, V1),
        f"s3://{NAME}/x",
        env=bucket.environment,
        check=False,
    )
    assert done.code == 4
    assert "AWS_ACCESS_KEY_ID" in done.error
    assert not any(
        bucket.environment[name] in done.err + done.out
        for name in bucket.environment
        if "KEY" in name
    )


def test_offline_a_directory_can_be_published_to_and_a_bucket_cannot(
    registry: Registry, bucket: Bucket, tmp_path: Path
) -> None:
    image = name_of(registry, V1)
    absent = command.zpull(
        tmp_path, "publish", image, tmp_path / "out", "--offline", "--format", "json", check=False
    )
    assert (absent.code, "error" in absent.receipt) == (3, True)
    command.zpull(tmp_path, image, "--exact")
    before = registry.accounts.count()
    assert published(tmp_path, image, tmp_path / "out", "--offline")["exports"]
    refused = command.zpull(
        tmp_path,
        "publish",
        image,
        f"s3://{NAME}/x",
        "--offline",
        env=bucket.environment,
        check=False,
    )
    assert (refused.code, bucket.log, registry.accounts.count() - before) == (2, [], 0)


def test_a_dry_run_says_what_it_would_fetch(
    registry: Registry, bucket: Bucket, tmp_path: Path
) -> None:
    place = f"s3://{NAME}/x"
    done = command.zpull(
        tmp_path, "publish", name_of(registry, V1), place, "--dry-run", env=bucket.environment
    )
    assert "a pull fetches" in done.out
    assert bucket.log == []
