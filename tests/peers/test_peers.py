"""The peers themselves: when one of these fails, do not look for the fault in zpull."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from tests.helpers.servers import peers, swift
from tests.peers import corpus

pytestmark = pytest.mark.peer
GENERATION_1 = {
    f"io.containers.zstd-chunked.{name}" for name in ("manifest-checksum", "manifest-position")
}
GENERATION_4 = {
    f"io.github.containers.zstd-chunked.{name}"
    for name in ("manifest-checksum", "manifest-position", "tarsplit-position")
}


def ask(server: peers.Server, path: str, **headers: str) -> bytes:
    """The body of a page that must be there, and of a range that must be respected."""
    request = urllib.request.Request(server.url + path, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == (206 if "Range" in headers else 200)
        body: bytes = answer.read()
        return body


def layers(server: peers.Server, image: str) -> list[dict[str, Any]]:
    path = f"/v2/{image.replace(':', '/manifests/')}"
    manifest = json.loads(ask(server, path, Accept="application/vnd.oci.image.manifest.v1+json"))
    return [*manifest["layers"]]


def test_the_new_writer_makes_generation_4(registry: peers.Server, new: str) -> None:
    for tag in ("v1", "v2"):
        assert [GENERATION_4] * 2 == [
            {*layer["annotations"]} for layer in layers(registry, f"{new}:{tag}")
        ]


def test_the_old_writer_makes_generation_1(registry: peers.Server, old: str) -> None:
    for tag in ("v1", "v2"):
        assert [GENERATION_1] * 2 == [
            {*layer["annotations"]} for layer in layers(registry, f"{old}:{tag}")
        ]


@pytest.mark.parametrize("writer", ["new", "old"])
def test_a_writer_keeps_the_config(
    writer: str, request: pytest.FixtureRequest, registry: peers.Server, plain: Path
) -> None:
    repository = request.getfixturevalue(writer)
    wanted = corpus.truth(plain, "v2")
    config = ask(registry, f"/v2/{repository}/blobs/{wanted.config_digest}")
    assert [*wanted.diff_ids] == json.loads(config)["rootfs"]["diff_ids"]


def test_both_servers_count_the_bytes_of_a_range(
    registry: peers.Server, front: peers.Server, old: str
) -> None:
    layer = layers(registry, f"{old}:v1")[0]["digest"]
    path = f"/v2/{old}/blobs/{layer}"
    with registry.watched() as behind, front.watched() as before:
        ask(front, path, Range="bytes=1000-1099")
        several = ask(front, path, Range="bytes=0-9,100000-100009")
    assert [100, len(several)] == [hit.sent for hit in before] == [hit.sent for hit in behind]
    assert ["bytes=1000-1099", "bytes=0-9,100000-100009"] == [hit.range for hit in before]
    assert all(hit.is_blob and hit.status == 206 and hit.path == path for hit in before)


def test_a_watch_sees_only_its_own_time(front: peers.Server, old: str) -> None:
    layers(front, f"{old}:v1")
    with front.watched() as hits:
        layers(front, f"{old}:v2")
    layers(front, f"{old}:v1")
    assert [f"/v2/{old}/manifests/v2"] == [hit.path for hit in hits]


def test_nginx_serves_a_folder_of_files(tmp_path: Path) -> None:
    tmp_path.joinpath("tides").write_bytes(b"0123456789")
    with peers.nginx(tmp_path / "nginx", root=tmp_path, rules="max_ranges 1;") as server:
        assert b"234" == ask(server, "/tides", Range="bytes=2-4")
        with pytest.raises(urllib.error.HTTPError, match="404") as missing:
            ask(server, "/absent")
        missing.value.close()
        assert [(206, 3), (404, 153)] == [(hit.status, hit.sent) for hit in server.hits()]


def test_a_registry_with_tls_and_passwords(tmp_path: Path, plain: Path) -> None:
    skopeo = peers.skopeo_old()
    with peers.docker_registry(tmp_path / "registry", auth=True, tls=True) as server:
        assert server.ca is not None
        certificates = tmp_path / "certificates"
        certificates.mkdir()
        certificates.joinpath("ca.crt").write_bytes(server.ca.read_bytes())
        options = (
            "--dest-cert-dir",
            certificates,
            "--dest-creds",
            f"{peers.USER}:{peers.PASSWORD}",
        )
        skopeo("copy", *options, f"oci:{plain}:v1", f"docker://{server.host}/closed:v1")
        with pytest.raises(AssertionError, match="authentication required"):
            skopeo(
                "inspect",
                "--no-creds",
                "--cert-dir",
                certificates,
                f"docker://{server.host}/closed:v1",
            )
        assert {401, 201} <= {hit.status for hit in server.hits()}


def test_a_bucket_gives_ranges(s3: peers.Server) -> None:
    swift.make_bucket(s3, "tides")
    store = S3Store(
        "tides", endpoint=s3.url, access_key_id=swift.KEY, secret_access_key=swift.SECRET,
        region=swift.REGION, client_options={"allow_http": True},
    )  # fmt: skip
    obstore.put(store, "high/water", b"0123456789" * 100)
    with s3.watched() as hits:
        assert b"234" == bytes(obstore.get_range(store, "high/water", start=2, end=5))
    assert [("GET", 206, 3, "bytes=2-4")] == [
        (hit.method, hit.status, hit.sent, hit.range) for hit in hits
    ]
    assert ["high/water"] == [entry["path"] for batch in obstore.list(store) for entry in batch]


def test_podman_loads_an_archive(tmp_path: Path, plain: Path) -> None:
    podman = peers.podman(tmp_path / "podman")
    peers.skopeo_old()(
        "copy", f"oci:{plain}:v1", f"docker-archive:{tmp_path}/image.tar:localhost/tides:v1"
    )
    podman("load", "--input", tmp_path / "image.tar")
    assert (
        corpus.truth(plain, "v1").config_digest == podman("images", "--no-trunc", "--quiet").strip()
    )


def test_the_new_podman_pulls_partially(
    front: peers.Server, new: str, plain: Path, tmp_path: Path
) -> None:
    podman = peers.podman_new(tmp_path / "podman")
    podman("pull", "--tls-verify=false", f"{front.host}/{new}:v1")
    with front.watched() as hits:
        podman("pull", "--tls-verify=false", f"{front.host}/{new}:v2")
    blob = layers(front, f"{new}:v2")[1]["size"]
    assert sum(hit.sent for hit in hits if hit.is_blob) < blob / 4
    ids = podman("images", "--no-trunc", "--quiet").split()
    assert {corpus.truth(plain, tag).config_digest for tag in ("v1", "v2")} == {*ids}


def test_a_missing_peer_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(peers, "SYSTEM_PATH", "")
    monkeypatch.delenv("ZPULL_REQUIRE_PEERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install skopeo"):
        peers.require("skopeo")
    monkeypatch.setenv("ZPULL_REQUIRE_PEERS", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install skopeo"):
        peers.require("skopeo")
