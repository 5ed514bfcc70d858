"""`docs/ci.md` and the composite action: their shell lines are run, against a registry of ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.helpers.harness.command import environment, zpull
from tests.helpers.harness.extract import extract
from tests.helpers.harness.rough import versions
from tests.helpers.servers.registry import Registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `zpull` is this one."""
    script = tmp_path / "bin" / "zpull"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m zchunked "$@"\n')
    script.chmod(0o755)
    return f"{script.parent}:{os.environ['PATH']}"


def test_the_shell_script_trims_the_cache_and_the_next_run_uses_it(
    path: str, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    sent = []
    with Registry(versions()) as registry:
        for number, tag in enumerate(("v1", "v2")):
            cache = tmp_path / f"cache{number}"
            if number:  # as a CI service does: packed, kept, unpacked elsewhere
                with tarfile.open(tmp_path / "kept.tar") as archive:
                    extract(archive, cache)
            env = environment(
                tmp_path, {"PATH": path, "IMAGE": registry.reference(tag), "CACHE": str(cache)}
            )
            env["WORK"] = str(tmp_path / f"work{number}")
            Path(env["WORK"]).mkdir()
            before = registry.accounts.body_bytes
            subprocess.run(["sh", "-ec", script], env=env, check=True, capture_output=True)
            sent.append(registry.accounts.body_bytes - before)
            with tarfile.open(tmp_path / "kept.tar", "w") as archive:
                archive.add(cache / "store", "store")
            shutil.rmtree(cache)
        size = sum(layer.size for layer in versions()["v2"].layers)
        assert (tmp_path / "kept.tar").stat().st_size < 1.5 * size + 300_000
    assert sent[1] < size - 200_000, "what both versions have was in the cache"


def test_the_action_pulls_what_is_listed_and_keeps_no_more(path: str, tmp_path: Path) -> None:
    text = (ROOT / "integrations" / "github" / "action.yml").read_text(encoding="utf-8")
    found = re.search(r"      run: \|\n((?:        .*\n)+)", text)
    assert found
    script = re.sub(r"(?m)^        ", "", found[1])
    with Registry(versions()) as registry:
        zpull(tmp_path, registry.reference("v1"))
        env = environment(tmp_path, {
            "PATH": path,
            "IMAGES": f"{registry.reference('v2')}  # ours\n\n",
            "TO": f"oci:{tmp_path / 'out'}\n",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
        })  # fmt: skip
        subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script], env=env, check=True, capture_output=True
        )
        assert (tmp_path / "out" / "index.json").exists()
        said = (tmp_path / "output").read_text()
        assert f"{registry.reference('v2').rpartition(':')[0]}@sha256:" in said
        assert registry.reference("v1") not in zpull(tmp_path, "images").out
        assert registry.reference("v2") in zpull(tmp_path, "images").out
