"""Layouts that real tools wrote and real web servers send: ranges or not, packed or not."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.golden import Golden
from tests.helpers.harness import command
from tests.helpers.servers import peers

V1, V2 = Golden("demo", "demo-v1"), Golden("demo", "demo-v2")
NEEDED = 41_317
"""Bytes of the update's layer in no frame of the version before: payloads, headers, tail."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(V1.layout, tmp_path / "www" / "base")
    return tmp_path / "www"


def pulled(
    server: peers.Server, home: Path, tag: str, *options: str
) -> tuple[dict[str, Any], list[peers.Hit]]:
    with server.watched() as hits:
        found = command.receipt(home, f"oci+http://{server.host}/base:{tag}", *options)
    spent = found["bytes"]
    assert spent["fetched"] == spent["needed"] + spent["metadata"] + spent["gap"] + spent["wasted"]
    assert found["requests"] == len(hits)
    return found, hits


def assert_is(one: Golden, found: dict[str, Any]) -> None:
    assert found["image_id"] == one.expect["config"]["digest"]
    assert [layer["diff_id"] for layer in found["layers"]] == one.expect["diff_ids"]


@pytest.mark.parametrize(
    "rules", ["", "max_ranges 1;", "gzip on; gzip_types *; gzip_min_length 1; gzip_static on;"]
)
def test_an_update_from_nginx_is_partial(root: Path, tmp_path: Path, rules: str) -> None:
    with peers.nginx(tmp_path / "nginx", root=root, rules=rules) as server:
        pulled(server, tmp_path, "demo-v1")
        found, hits = pulled(server, tmp_path, "demo-v2")
        assert_is(V2, found)
        assert found["bytes"]["fetched"] == sum(hit.sent for hit in hits)
        layers = {layer["digest"][7:] for layer in found["layers"]}
        assert (
            sum(hit.sent for hit in hits if hit.path.rpartition("/")[2] in layers) <= 1.10 * NEEDED
        )
        again, hits = pulled(server, tmp_path, "demo-v2")
        assert again["requests"] == len(hits) == 1


def test_nginx_without_ranges_sends_whole_blobs_and_only_those_that_are_not_here(
    root: Path, tmp_path: Path
) -> None:
    with peers.nginx(tmp_path / "nginx", root=root, rules="max_ranges 0;") as server:
        pulled(server, tmp_path, "demo-v1")
        found, hits = pulled(server, tmp_path, "demo-v2")
        assert_is(V2, found)
        shared = set(V1.expect["diff_ids"]) & set(V2.expect["diff_ids"])
        for layer in found["layers"]:
            asked = [hit for hit in hits if hit.path.endswith(layer["digest"][7:])]
            assert len(asked) == (0 if layer["diff_id"] in shared else 1)


def test_nginx_that_sends_packed_files_whatever_is_asked_costs_bytes_alone(
    root: Path, tmp_path: Path
) -> None:
    """Offsets mean nothing in a packed blob.

    It is unpacked where it comes whole, and the digest decides.
    """
    for one in (V1, V2):
        layer = (
            root
            / "base"
            / "blobs"
            / "sha256"
            / max(one.layers, key=lambda layer: int(layer["size"]))["digest"][7:]
        )
        layer.with_name(layer.name + ".gz").write_bytes(gzip.compress(layer.read_bytes()))
    with peers.nginx(tmp_path / "nginx", root=root, rules="gzip_static always;") as server:
        for one in (V1, V2):
            ended = command.zpull(
                tmp_path,
                f"oci+http://{server.host}/base:{one.tag}",
                "--format",
                "json",
                check=False,
            )
            if ended.code == 0:
                assert_is(one, ended.receipt)
            else:
                assert ended.code == 5
                assert "gzip_static always" in ended.error


def test_nginx_that_wants_a_password(root: Path, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text("me:{PLAIN}s3cr3t\n")
    rules = f"auth_basic files; auth_basic_user_file {tmp_path}/htpasswd;"
    with peers.nginx(tmp_path / "nginx", root=root, rules=rules) as server:
        found = command.receipt(
            tmp_path, f"oci+http://{server.host}/base:demo-v1", "--creds", "me:s3cr3t"
        )
        assert_is(V1, found)
        for creds in ((), ("--creds", "me:wrong")):
            ended = command.zpull(
                tmp_path, f"oci+http://{server.host}/base:demo-v2", *creds, check=False
            )
            assert ended.code == 4
            assert "--creds" in ended.error or "do not open it" in ended.error
            assert "wrong" not in ended.error


@contextmanager
def python_server(root: Path) -> Iterator[str]:
    """`python -m http.server`: HTTP/1.0 and no ranges."""
    argv = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(root),
        "0",
    ]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"port (\d+)", process.stdout.readline())
            assert found is not None
            yield f"127.0.0.1:{found[1]}"
        finally:
            process.terminate()


def test_pythons_own_web_server_will_do(root: Path, tmp_path: Path) -> None:
    with python_server(root) as host:
        for one in (V1, V2):
            assert_is(one, command.receipt(tmp_path, f"oci+http://{host}/base:{one.tag}"))
        again = command.receipt(tmp_path, f"oci+http://{host}/base:{V2.tag}")
        assert again["requests"] == 1
        assert again["bytes"]["fetched"] == (V1.layout / "index.json").stat().st_size


def test_a_layout_that_skopeo_wrote(plain: Path, tmp_path: Path) -> None:
    skopeo = peers.skopeo_old()
    for tag in ("v1", "v2"):
        skopeo(
            "copy",
            "--dest-compress-format",
            "zstd:chunked",
            f"oci:{plain}:{tag}",
            f"oci:{tmp_path}/made:{tag}",
        )
    found = command.receipt(
        tmp_path, f"oci:{tmp_path}/made:v1", "--to", f"oci:{tmp_path}/out:again"
    )
    assert found["bytes"]["fetched"] == 0
    read = peers.skopeo_old()(
        "inspect", "--format", "{{.Digest}}", f"oci:{tmp_path}/out:again"
    ).strip()
    assert read == found["exports"][0]["manifest_digest"]
    assert command.zpull(tmp_path, f"oci:{tmp_path}/made", check=False).code == 3


def test_a_layout_that_podman_wrote(plain: Path, tmp_path: Path) -> None:
    podman = peers.podman(tmp_path / "podman")
    podman("pull", "-q", f"oci:{plain}:v1")
    image = podman("images", "-q", "--no-trunc").strip()
    podman("save", "-q", "--format", "oci-dir", "-o", tmp_path / "saved", image)
    found = command.receipt(tmp_path, f"oci:{tmp_path}/saved")
    assert found["image_id"] == image
    assert found["bytes"]["fetched"] == 0
