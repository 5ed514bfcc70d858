"""Published to real peers and read back by them: Swift's S3, python's own web server, skopeo."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from tests.helpers.harness import command
from tests.helpers.servers import peers, swift
from tests.peers import corpus

pytestmark = pytest.mark.peer
BUCKET = "fleet"


@pytest.fixture(scope="module")
def bucket(s3: peers.Server) -> dict[str, str]:
    """What leads to a bucket of that name."""
    swift.make_bucket(s3, BUCKET)
    return {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": swift.KEY,
        "AWS_SECRET_ACCESS_KEY": swift.SECRET,
        "AWS_REGION": swift.REGION,
    }


def store_at(s3: peers.Server, prefix: str) -> S3Store:
    return S3Store(
        BUCKET, prefix=prefix, endpoint=s3.url, access_key_id=swift.KEY,
        secret_access_key=swift.SECRET, region=swift.REGION, client_options={"allow_http": True},
    )  # fmt: skip


def objects(s3: peers.Server, prefix: str) -> dict[str, int]:
    return {
        entry["path"]: entry["size"]
        for batch in obstore.list(store_at(s3, prefix))
        for entry in batch
    }


def test_a_fleet_is_served_from_a_bucket(
    s3: peers.Server,
    bucket: dict[str, str],
    front: peers.Server,
    new: str,
    plain: Path,
    tmp_path: Path,
) -> None:
    place = f"s3://{BUCKET}/apps/tides"
    for tag in ("v1", "v2"):
        command.zpull(tmp_path / "publisher", f"{front.host}/{new}:{tag}")
    before: dict[str, int] = {}
    for tag in ("v1", "v2"):
        with s3.watched() as hits:
            receipt = command.receipt(
                tmp_path / "publisher", "publish", f"{front.host}/{new}:{tag}", place, env=bucket
            )
        after = objects(s3, "apps/tides")
        written = {
            hit.path.rpartition("apps/tides/")[2]
            for hit in hits
            if hit.method == "PUT" and hit.status == 200
        }
        assert {path.partition("?")[0] for path in written} == {
            *(after.keys() - before.keys()),
            "index.json",
        }
        assert receipt["exports"][0]["manifest_digest"] == receipt["manifest_digest"]
        before = after
    spent = {}
    for tag in ("v1", "v2"):
        with s3.watched() as hits:
            receipt = command.receipt(tmp_path / "device", f"{place}:{tag}", env=bucket)
        assert receipt["image_id"] == corpus.truth(plain, tag).config_digest
        assert tuple(layer["diff_id"] for layer in receipt["layers"]) == tuple(
            corpus.truth(plain, tag).diff_ids
        )
        assert receipt["bytes"]["fetched"] == sum(hit.sent for hit in hits)
        assert receipt["requests"] == len(hits)
        spent[tag] = receipt["bytes"]
    assert spent["v2"]["fetched"] < spent["v2"]["image"] / 4


def test_a_large_layer_goes_up_in_parts(
    s3: peers.Server, bucket: dict[str, str], registry: peers.Server, tmp_path: Path
) -> None:
    layout = tmp_path / "large"
    corpus.layout(
        layout, {"v1": [corpus.tar(corpus.grow(9, 40, under="noise")).ljust(14 << 20, b"\0")]}
    )
    with s3.watched() as hits:
        command.zpull(tmp_path, "publish", f"oci:{layout}:v1", f"s3://{BUCKET}/large", env=bucket)
    assert len([hit for hit in hits if "partNumber" in hit.path]) >= 2
    receipt = command.receipt(tmp_path / "device", f"s3://{BUCKET}/large:v1", env=bucket)
    assert receipt["image_id"] == corpus.truth(layout, "v1").config_digest


def test_a_wrong_key_and_a_missing_bucket_are_told_apart(
    bucket: dict[str, str], tmp_path: Path
) -> None:
    wrong = bucket | {"AWS_SECRET_ACCESS_KEY": "not-this-one"}
    refused = command.zpull(tmp_path, f"s3://{BUCKET}/apps/tides:v1", env=wrong, check=False)
    assert (refused.code, "SignatureDoesNotMatch" in refused.err or "signature" in refused.err) == (
        4,
        True,
    )
    assert "not-this-one" not in refused.err
    missing = command.zpull(tmp_path, "s3://ebb/apps/tides:v1", env=bucket, check=False)
    assert (missing.code, "bucket does not exist" in missing.error) == (3, True)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory, and where python's own web server shows it."""
    folder = tmp_path / "www"
    folder.mkdir()
    argv = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
        "0",
    ]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().rpartition("port ")[2].split()[0]
        yield folder, f"127.0.0.1:{port}"
        server.terminate()


def test_a_published_directory_is_read_by_skopeo_and_behind_a_plain_web_server(
    web: tuple[Path, str], front: peers.Server, new: str, plain: Path, tmp_path: Path
) -> None:
    skopeo = peers.skopeo_old()
    folder, host = web
    for tag in ("v1", "v2"):
        command.zpull(tmp_path, "publish", f"{front.host}/{new}:{tag}", folder / "tides")
    for tag in ("v1", "v2"):
        wanted = corpus.truth(plain, tag)
        manifest = json.loads(skopeo("inspect", "--raw", f"oci:{folder}/tides:{tag}"))
        assert manifest["config"]["digest"] == wanted.config_digest
        receipt = command.receipt(tmp_path / "device", f"oci+http://{host}/tides:{tag}")
        assert receipt["image_id"] == wanted.config_digest
    skopeo("copy", f"oci:{folder}/tides:v2", f"oci:{tmp_path}/copy:v2")


def test_a_publisher_that_is_killed_leaves_a_layout_that_skopeo_reads(
    front: peers.Server, new: str, tmp_path: Path
) -> None:
    skopeo = peers.skopeo_old()
    target = tmp_path / "tides"
    command.zpull(tmp_path, "publish", f"{front.host}/{new}:v1", target)
    command.zpull(tmp_path, f"{front.host}/{new}:v2", "--exact")
    argv = [*command.ARGV, "publish", f"{front.host}/{new}:v2", str(target)]
    fresh = {path.name for path in (target / "blobs" / "sha256").iterdir()}
    with subprocess.Popen(
        argv, env=command.environment(tmp_path), stderr=subprocess.DEVNULL
    ) as run:
        peers.wait_for(
            lambda: (
                run.poll() is not None
                or {path.name for path in (target / "blobs" / "sha256").iterdir()} - fresh
            ),
            "a blob on its way",
        )
        run.send_signal(signal.SIGKILL)
    skopeo("inspect", f"oci:{target}:v1")
    command.zpull(tmp_path, "publish", f"{front.host}/{new}:v2", target)
    for tag in ("v1", "v2"):
        skopeo("copy", f"oci:{target}:{tag}", f"oci:{tmp_path}/copy:{tag}")
    assert [
        path.name for path in (target / "blobs" / "sha256").iterdir() if path.name.startswith(".")
    ] == []
