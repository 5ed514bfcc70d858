"""`docker:` and `podman:` as SOURCE.

The archive that an engine saves, by a stand-in for the engine.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.helpers.build.golden import Golden
from tests.helpers.harness import command
from tests.helpers.servers.uploads import UploadRegistry

GZIP = Golden("demo", "plain-gzip")
CONFIG = str(GZIP.expect["config"]["digest"])


def saved(folder: Path, kind: str) -> Path:
    """The image as `docker save` and as `podman save --format oci-archive` write it."""
    path = folder / f"{kind}.tar"
    with tarfile.open(path, "w") as tar:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        manifest = GZIP.expect["manifest"]["digest"]
        document = json.loads(GZIP.blob(manifest))
        blobs = [one["digest"] for one in (document["config"], *document["layers"])]
        for digest in blobs:
            add(f"blobs/{digest.replace(':', '/')}", GZIP.blob(digest))
        if kind == "docker":
            names = [f"blobs/{digest.replace(':', '/')}" for digest in blobs]
            add(
                "manifest.json",
                json.dumps([{"Config": names[0], "RepoTags": None, "Layers": names[1:]}]).encode(),
            )
        else:
            data = GZIP.blob(manifest)
            add(f"blobs/{manifest.replace(':', '/')}", data)
            entry = {"mediaType": document["mediaType"], "digest": manifest, "size": len(data)}
            add("index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
            add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    return path


def engine(folder: Path, kind: str, script: str) -> dict[str, str]:
    """A PATH on which the engine is this shell script."""
    folder.mkdir(exist_ok=True)
    program = folder / kind
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def answers(archive: Path, calls: Path, end: str = "exit 0") -> str:
    oci = "application/vnd.oci.image.manifest.v1+json" if archive.name.startswith("podman") else ""
    return f"""
echo "$@" >> {calls}
case "$1 $2" in
  "version "*) echo 26.1 ;;
  "info "*) echo false ;;
  "context inspect") echo unix:///run/docker.sock ;;
  "image inspect") [ "$5" = app:latest ] || {{ echo "Error: No such image: $5" >&2; exit 1; }}
     echo {CONFIG} {oci} ;;
  save*) cat {archive}; {end} ;;
  *) exit 9 ;;
esac
"""


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_an_image_of_an_engine_is_converted(kind: str, tmp_path: Path) -> None:
    archive, calls = saved(tmp_path, kind), tmp_path / "calls"
    env = engine(tmp_path / "bin", kind, answers(archive, calls))
    told = command.receipt(tmp_path, "convert", f"{kind}:app", f"oci:{tmp_path}/out:v1", env=env)
    assert told["source"] == f"{kind}:app:latest"
    [image] = told["images"]
    assert image["image_id"] == CONFIG
    assert [layer["outcome"] for layer in image["layers"]] == ["converted"] * len(image["layers"])
    form = ["--quiet", "--format", "oci-archive"] if kind == "podman" else []
    assert calls.read_text().splitlines()[-1].split() == ["save", *form, CONFIG]


def test_an_image_of_an_engine_is_pushed(tmp_path: Path) -> None:
    env = engine(tmp_path / "bin", "podman", answers(saved(tmp_path, "podman"), tmp_path / "calls"))
    with UploadRegistry() as registry:
        command.zpull(tmp_path, "push", "podman:app", f"{registry.host}/team/app:v1", env=env)
        assert registry.manifests["team/app"]["v1"] == GZIP.blob(GZIP.expect["manifest"]["digest"])


def test_an_engine_that_is_missing_or_stopped_or_has_no_such_image_is_said_first(
    tmp_path: Path,
) -> None:
    with UploadRegistry() as registry:
        words = f"{registry.host}/team/app:v1"
        (tmp_path / "nothing").mkdir()
        missing = command.zpull(
            tmp_path,
            "push",
            "docker:app",
            words,
            env={"PATH": str(tmp_path / "nothing")},
            check=False,
        )
        assert (
            missing.code,
            "docker:app:latest: there is no docker on this machine" in missing.err,
        ) == (8, True)
        env = engine(
            tmp_path / "bin", "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1"
        )
        stopped = command.zpull(tmp_path, "push", "docker:app", words, env=env, check=False)
        assert (stopped.code, "docker: Cannot connect to the Docker daemon" in stopped.err) == (
            8,
            True,
        )
        env = engine(tmp_path / "bin", "docker", answers(tmp_path / "none", tmp_path / "calls"))
        unknown = command.zpull(
            tmp_path, "convert", "docker:other", f"oci:{tmp_path}/out:v1", env=env, check=False
        )
        assert (unknown.code, "No such image: other:latest" in unknown.err) == (8, True)
        assert "save" not in (tmp_path / "calls").read_text()
        assert not registry.hits


@pytest.mark.parametrize("size", [0, 700, 100_000])
def test_an_engine_that_ends_early_is_to_blame(size: int, tmp_path: Path) -> None:
    archive = saved(tmp_path, "docker")
    os.truncate(archive, min(size, archive.stat().st_size))
    script = answers(archive, tmp_path / "calls", "echo 'write: the disk is broken' >&2; exit 1")
    env = engine(tmp_path / "bin", "docker", script)
    failed = command.zpull(
        tmp_path, "convert", "docker:app", f"oci:{tmp_path}/out:v1", env=env, check=False
    )
    assert (failed.code, "docker: write: the disk is broken" in failed.err) == (8, True)
    assert not (tmp_path / "out").exists()
