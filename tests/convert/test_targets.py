"""Conversions that go to a bucket, from archives, and back again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.helpers.build.golden import Golden
from tests.helpers.harness import command
from tests.helpers.servers.bucket import NAME, Bucket

GZIP = Golden("demo", "plain-gzip")


@pytest.mark.parametrize("options", [(), ("--add",)], ids=["image", "index"])
def test_a_bucket_gets_the_converted_image(options: tuple[str, ...], tmp_path: Path) -> None:
    source, prefix = f"oci:{GZIP.layout}:{GZIP.tag}", "apps/demo"
    with Bucket() as bucket:
        target, env = f"s3://{NAME}/{prefix}:v1", bucket.environment
        told = command.receipt(tmp_path / "home", "convert", source, target, *options, env=env)
        [entry] = json.loads(bucket.objects[f"{prefix}/index.json"])["manifests"]
        assert entry["digest"] == told["manifest_digest"]
        blobs = {key: data for key, data in bucket.objects.items() if "/blobs/" in key}
        for key, data in blobs.items():
            assert key.rpartition("/")[2] == hashlib.sha256(data).hexdigest()
        [image] = told["images"]
        names = {key.rpartition("/")[2] for key in blobs}
        for layer in image["layers"]:
            assert layer["digest"].partition(":")[2] in names
            assert (layer["source"].partition(":")[2] in names) == bool(options)
        pulled = command.receipt(tmp_path / "other", target, env=env)
        assert pulled["image_id"] == image["image_id"] == GZIP.expect["config"]["digest"]


def test_an_archive_is_converted_to_an_archive(tmp_path: Path) -> None:
    first, second = (f"oci-archive:{tmp_path}/{name}.tar" for name in ("first", "second"))
    source = f"oci:{GZIP.layout}:{GZIP.tag}"
    told = command.receipt(tmp_path / "home", "convert", source, first)
    again = command.receipt(tmp_path / "other", "convert", first, second)
    assert again["manifest_digest"] == told["manifest_digest"]
    assert {layer["outcome"] for layer in again["images"][0]["layers"]} == {"kept"}
