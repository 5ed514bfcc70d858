"""Other people's clients pull through the server.

The specification's own suite finds it conformant.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers.build.front import OCI_MANIFEST, dumps, sha256
from tests.helpers.build.golden import Golden
from tests.helpers.servers import peers
from tests.helpers.servers.registry import Registry
from tests.serve.conftest import Start, start

__all__ = ["start"]
V1 = Golden("demo", "demo-v1")
DIGEST = str(V1.expect["manifest"]["digest"])

_DOCUMENT = dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": sha256(b"{}"),
            "size": 2,
        },
        "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": len(V1.blob(DIGEST))},
    }
)
SIGNATURE = (sha256(_DOCUMENT), _DOCUMENT)
"""Digest and bytes of an artifact that refers to the image."""


def is_whole(layout: Path) -> bool:
    """Whether a layout holds the image, byte for byte."""
    blobs = layout / "blobs" / "sha256"
    wanted = [DIGEST, V1.expect["config"]["digest"], *(layer["digest"] for layer in V1.layers)]
    return all(
        "sha256:" + hashlib.sha256((blobs / one[7:]).read_bytes()).hexdigest() == one
        for one in wanted
    )


@pytest.mark.peer
def test_the_conformance_suite_passes(start: Start, tmp_path: Path) -> None:
    """The pull part, tags and referrers, and the digest header of blobs.

    That of manifests is not asked for: of one that it did not push itself the suite keeps no
    response, and looks for the header in an empty one (`ManifestGetExists`, `ManifestHeadExists` in
    its api.go). That it is sent, on HEAD as on GET, is asserted below.
    """
    suite = peers.built("conformance")
    with Registry(V1.layout) as registry:
        registry.content.manifests[SIGNATURE[0]] = (OCI_MANIFEST, SIGNATURE[1])
        for tag in {*registry.content.tags} - {"demo-v1"}:
            del registry.content.tags[tag]  # for this upstream knows no `last`
        served = start(registry)
        asked = {
            "OCI_REGISTRY": f"127.0.0.1:{served.port}",
            "OCI_TLS": "disabled",
            "OCI_REPO1": "local/demo",
            "OCI_REPO2": "local/other",
            "OCI_API_PUSH": "false",
            "OCI_API_BLOBS_DELETE": "false",
            "OCI_API_MANIFESTS_DELETE": "false",
            "OCI_API_TAGS_DELETE": "false",
            "OCI_API_REFERRER": "true",
            "OCI_API_BLOBS_DIGEST_HEADER": "true",
            "OCI_RO_DATA_TAGS": "demo-v1",
            "OCI_RO_DATA_MANIFESTS": DIGEST,
            "OCI_RO_DATA_REFERRERS": DIGEST,
            "OCI_RO_DATA_BLOBS": " ".join(str(layer["digest"]) for layer in V1.layers),
            "OCI_RESULTS_DIR": str(tmp_path),
        }
        env = {**peers.environment(), **asked}
        # Of images that it did not push itself it knows no names, and falls over its own last
        # report.
        said = subprocess.run(
            suite.argv, env=env, capture_output=True, text=True, timeout=120, check=False
        ).stderr
    assert "failed test" not in said
    done = {
        (one.method, one.path.split("/")[4])
        for one in served.access
        if one.status == 200 and "/demo/" in one.path
    }
    assert done >= {
        (method, kind) for method in ("GET", "HEAD") for kind in ("manifests", "blobs")
    } | {("GET", "tags"), ("GET", "referrers")}
    for method in ("GET", "HEAD"):
        answer = served.ask(f"/v2/local/demo/manifests/{DIGEST}", method)
        assert answer.headers["Docker-Content-Digest"] == DIGEST


@pytest.mark.peer
def test_crane_pulls_through_the_server(start: Start, tmp_path: Path) -> None:
    crane = peers.built("crane")
    with Registry(V1.layout) as registry:
        name = f"127.0.0.1:{start(registry).port}/local/demo"
        assert crane("digest", f"{name}:demo-v1").strip() == DIGEST
        assert "demo-v1" in crane("ls", name).split()
        crane("pull", "--format", "oci", f"{name}:demo-v1", tmp_path / "layout")
    assert is_whole(tmp_path / "layout")


@pytest.mark.peer
def test_regctl_pulls_through_the_server(start: Start, tmp_path: Path) -> None:
    regctl = peers.Tool(peers.built("regctl").argv, {"HOME": str(tmp_path)})
    with Registry(V1.layout) as registry:
        host = f"127.0.0.1:{start(registry).port}"
        regctl("registry", "set", "--tls", "disabled", host)
        assert json.loads(
            regctl("manifest", "get", "--format", "raw-body", f"{host}/local/demo:demo-v1")
        )
        regctl("image", "copy", f"{host}/local/demo:demo-v1", f"ocidir://{tmp_path}/layout:v1")
    assert is_whole(tmp_path / "layout")


@pytest.mark.peer
def test_oras_pulls_through_the_server(start: Start, tmp_path: Path) -> None:
    """Images, lists, what refers to an image, and an artifact of files."""
    oras = peers.Tool(peers.built("oras").argv, {"HOME": str(tmp_path)})
    with Registry(V1.layout) as registry:
        registry.content.manifests[SIGNATURE[0]] = (OCI_MANIFEST, SIGNATURE[1])
        artifact = artifact_of(registry, "tides.csv", b"high,low\n")
        host = f"127.0.0.1:{start(registry).port}"
        name = f"{host}/local/demo"
        assert "demo-v1" in oras("repo", "tags", "--plain-http", name).split()
        assert (
            json.loads(
                oras("manifest", "fetch", "--plain-http", "--descriptor", f"{name}:demo-v1")
            )["digest"]
            == DIGEST
        )
        words = ("--plain-http", "--format", "json", f"{name}@{DIGEST}")
        assert SIGNATURE[0] in oras("discover", *words)
        layout = f"{tmp_path}/layout:v1"
        oras("copy", "--from-plain-http", f"{name}:demo-v1", "--to-oci-layout", layout)
        oras("pull", "--plain-http", "--output", tmp_path / "files", f"{name}@{artifact}")
    assert is_whole(tmp_path / "layout")
    assert (tmp_path / "files" / "tides.csv").read_bytes() == b"high,low\n"


def artifact_of(registry: Registry, title: str, data: bytes) -> str:
    """Add an artifact with one file; its digest."""
    empty, blob = b"{}", sha256(data)
    registry.content.blobs.update({sha256(empty): empty, blob: data})
    document = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.tides",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": sha256(empty),
                "size": len(empty),
            },
            "layers": [
                {
                    "mediaType": "text/csv",
                    "digest": blob,
                    "size": len(data),
                    "annotations": {"org.opencontainers.image.title": title},
                }
            ],
        }
    )
    registry.content.manifests[sha256(document)] = (OCI_MANIFEST, document)
    return sha256(document)


@pytest.mark.peer
@pytest.mark.parametrize("which", ["old", "new"])
def test_skopeo_pulls_through_the_server(which: str, start: Start, tmp_path: Path) -> None:
    skopeo = peers.skopeo_old() if which == "old" else peers.skopeo_new()
    with Registry(V1.layout) as registry:
        name = f"docker://127.0.0.1:{start(registry).port}/local/demo:demo-v1"
        skopeo("copy", "--src-tls-verify=false", name, f"oci:{tmp_path}/layout:v1")
        assert "demo-v1" in json.loads(skopeo("inspect", "--tls-verify=false", name))["RepoTags"]
    assert is_whole(tmp_path / "layout")
