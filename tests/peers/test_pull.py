"""zpull against real registries filled by real writers; what it wrote is read by real readers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.golden import Golden, all_golden
from tests.helpers.harness import command
from tests.helpers.servers import peers
from tests.peers import corpus

VERIFIABLE = [golden for golden in all_golden() if not golden.is_index and golden.verifiable]


@pytest.fixture(scope="session")
def golden(registry: peers.Server, shared: Path) -> str:
    """The repository `golden` on registry and front: every fixture, as its writer left it."""
    from tests.peers.conftest import once  # noqa: PLC0415

    def make() -> None:
        skopeo = peers.skopeo_old()
        for one in all_golden():
            target = f"docker://{registry.host}/golden/{one.set}:{one.tag}"
            skopeo(
                "copy",
                "--all",
                "--preserve-digests",
                "--dest-tls-verify=false",
                f"oci:{one.layout}:{one.tag}",
                target,
            )

    once(shared / "golden.done", make)
    return "golden"


def pulled(
    front: peers.Server, home: Path, name: str, *options: str
) -> tuple[dict[str, Any], list[peers.Hit]]:
    with front.watched() as hits:
        receipt = command.receipt(home, f"{front.host}/{name}", *options)
    spent = receipt["bytes"]
    assert spent["fetched"] == sum(hit.sent for hit in hits)
    assert spent["fetched"] == spent["needed"] + spent["metadata"] + spent["gap"] + spent["wasted"]
    assert receipt["requests"] == len(hits)
    return receipt, hits


@pytest.mark.parametrize("one", VERIFIABLE, ids=str)
def test_golden_image_from_a_real_registry(
    one: Golden, front: peers.Server, golden: str, tmp_path: Path
) -> None:
    receipt, _ = pulled(front, tmp_path, f"{golden}/{one.set}:{one.tag}")
    assert receipt["image_id"] == one.expect["config"]["digest"]
    assert receipt["manifest_digest"] == one.expect["manifest"]["digest"]
    assert [layer["diff_id"] for layer in receipt["layers"]] == one.expect["diff_ids"]


@pytest.mark.parametrize("one", [one for one in all_golden() if not one.verifiable], ids=str)
def test_unverifiable_image_is_refused_in_one_line(
    one: Golden, front: peers.Server, golden: str, tmp_path: Path
) -> None:
    ended = command.zpull(
        tmp_path,
        f"{front.host}/{golden}/{one.set}:{one.tag}",
        "--to",
        f"oci:{tmp_path}/out",
        "--prove",
        check=False,
    )
    assert ended.code == 6
    assert "unpacks to" in ended.error
    assert ended.out == ""
    assert not tmp_path.joinpath("out").exists()
    assert command.zpull(tmp_path, "images").out == ""


def test_golden_update_costs_what_its_truths_say(
    front: peers.Server, golden: str, tmp_path: Path
) -> None:
    command.zpull(tmp_path, f"{front.host}/{golden}/demo:demo-v1")
    receipt, hits = pulled(front, tmp_path, f"{golden}/demo:demo-v2", "--lean")
    layers = {layer["digest"] for layer in receipt["layers"]}
    assert sum(hit.sent for hit in hits if hit.path.rpartition("/")[2] in layers) <= 1.10 * 35_664


@pytest.mark.parametrize("writer", ["new", "old"])
def test_cold_pull_update_and_nothing_to_do(
    writer: str, front: peers.Server, plain: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name = request.getfixturevalue(writer)
    for tag in ("v1", "v2"):
        receipt, hits = pulled(front, tmp_path, f"{name}:{tag}")
        truth = corpus.truth(plain, tag)
        assert receipt["image_id"] == truth.config_digest
        assert [layer["diff_id"] for layer in receipt["layers"]] == list(truth.diff_ids)
        if tag == "v2":
            spent = receipt["bytes"]
            sent = sum(hit.sent for hit in hits if hit.is_blob)
            assert sent <= 1.05 * (spent["needed"] + spent["metadata"])
            assert spent["needed"] < spent["image"] / 4
    receipt, hits = pulled(front, tmp_path, f"{name}:v2")
    assert [hit.path for hit in hits] == [f"/v2/{name}/manifests/v2"]
    assert {layer["mode"] for layer in receipt["layers"]} == {"cached"}


def test_cold_pull_keeps_the_registrys_manifest_and_skopeo_reads_the_layout(
    front: peers.Server, new: str, tmp_path: Path
) -> None:
    skopeo = peers.skopeo_old()
    receipt, _ = pulled(
        front,
        tmp_path,
        f"{new}:v1",
        "--to",
        f"oci:{tmp_path}/out:v1",
        "--to",
        f"oci-archive:{tmp_path}/a.tar",
    )
    assert [layer["mode"] for layer in receipt["layers"]] == ["whole", "whole"]
    assert {export["manifest_digest"] for export in receipt["exports"]} == {
        receipt["manifest_digest"]
    }
    raw = skopeo("inspect", "--raw", f"oci:{tmp_path}/out:v1")
    assert raw == skopeo(
        "inspect", "--raw", "--tls-verify=false", f"docker://{front.host}/{new}:v1"
    )
    for source in (f"oci:{tmp_path}/out:v1", f"oci-archive:{tmp_path}/a.tar"):
        skopeo("copy", source, f"dir:{tmp_path}/copy")


def test_update_exports_are_read_by_skopeo_and_podman(
    front: peers.Server, new: str, plain: Path, tmp_path: Path
) -> None:
    command.zpull(tmp_path, f"{front.host}/{new}:v1")
    receipt, _ = pulled(front, tmp_path, f"{new}:v2")
    name = f"{front.host}/{new}:v2"
    to = [
        f"oci:{tmp_path}/out",
        f"oci-archive:{tmp_path}/oci.tar",
        f"docker-archive:{tmp_path}/docker.tar",
    ]
    command.zpull(tmp_path, "export", name, *(word for one in to for word in ("--to", one)))
    skopeo, podman = peers.skopeo_old(), peers.podman(tmp_path / "podman")
    for source in (
        f"oci:{tmp_path}/out:v2",
        f"oci-archive:{tmp_path}/oci.tar",
        f"docker-archive:{tmp_path}/docker.tar",
    ):
        skopeo("copy", source, f"dir:{tmp_path}/copy")
    podman("load", "--input", tmp_path / "docker.tar")
    assert (
        podman("images", "--no-trunc", "--quiet").strip()
        == receipt["image_id"]
        == corpus.truth(plain, "v2").config_digest
    )


def test_docker_archive_streams_to_podman(
    front: peers.Server, new: str, plain: Path, tmp_path: Path
) -> None:
    podman = peers.podman(tmp_path / "podman")
    with subprocess.Popen(
        [sys.executable, "-m", "zchunked", "-q", f"{front.host}/{new}:v1",
         "--to", "docker-archive:-"],
        env=command.environment(tmp_path), stdout=subprocess.PIPE,
    ) as sender:  # fmt: skip
        done = subprocess.run(
            [*podman.argv, "load"],
            stdin=sender.stdout,
            env=peers.environment() | dict(podman.env),
            capture_output=True,
            check=False,
        )
    assert (sender.returncode, done.returncode) == (0, 0), done.stderr
    assert (
        podman("images", "--no-trunc", "--quiet").strip() == corpus.truth(plain, "v1").config_digest
    )


def test_tls_and_password(tmp_path: Path, plain: Path) -> None:
    skopeo = peers.skopeo_old()
    with peers.docker_registry(tmp_path / "registry", auth=True, tls=True) as server:
        target = f"docker://{server.host}/closed:v1"
        creds = f"{peers.USER}:{peers.PASSWORD}"
        skopeo("copy", "--dest-tls-verify=false", "--dest-creds", creds, f"oci:{plain}:v1", target)
        name = f"{server.host}/closed:v1"
        refused = command.zpull(tmp_path, name, env={"SSL_CERT_FILE": str(server.ca)}, check=False)
        assert refused.code == 4, refused.err
        wrong = command.zpull(
            tmp_path, name, "--creds", "tester:wrong", "--tls-verify=false", check=False
        )
        assert wrong.code == 4
        assert "wrong" not in wrong.err.replace("wrong password", "")
        auth = tmp_path / "auth.json"
        subprocess.run(
            [
                "skopeo",
                "login",
                "--tls-verify=false",
                "--authfile",
                str(auth),
                "-u",
                peers.USER,
                "-p",
                peers.PASSWORD,
                server.host,
            ],
            check=True,
        )
        receipt = command.receipt(
            tmp_path, name, env={"SSL_CERT_FILE": str(server.ca), "REGISTRY_AUTH_FILE": str(auth)}
        )
        assert receipt["image_id"] == corpus.truth(plain, "v1").config_digest
        unknown = command.zpull(
            tmp_path, name, "--creds", creds, "--store", tmp_path / "other", check=False
        )
        assert unknown.code == 5
        assert "certificate" in unknown.error
