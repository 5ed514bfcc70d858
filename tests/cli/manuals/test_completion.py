"""Completions, in the shells themselves.

Verbs, options, files, images of the store, with a verb and without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.harness.command import zpull

SHELLS = ("bash", "zsh", "fish", "tcsh")
CASES = [
    (["pu"], {"pull", "publish", "push"}, {"plan"}),
    (["host:5000/x"], {"host:5000/x:v1"}, set()),
    (["pull", "host:5000/x"], {"host:5000/x:v1"}, set()),
    (["pull", "host/x", "host:5000/"], {"host:5000/x:v1"}, set()),
    (["export", "host:5000/x:"], {"host:5000/x:v1"}, set()),
    (["rm", "host:5"], {"host:5000/x:v1"}, set()),
    (["host/x:v1", "--patien"], {"--patience"}, set()),
    (["plan", "host/x:v1", "--forma"], {"--format"}, set()),
    (["images", "--format", ""], {"text", "json"}, set()),
    (["pull", "--authfile", "cre"], {"credentials"}, set()),
    (["images", "--not"], set(), {"--not-quiet"}),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a `zpull` with one image in its store is."""
    tmp_path.joinpath("zpull").write_text(
        "#!/bin/sh\nprintf 'IMAGE  PLATFORM\\nhost:5000/x:v1  linux\\n'\n"
    )
    tmp_path.joinpath("zpull").chmod(0o755)
    tmp_path.joinpath("credentials").touch()
    return tmp_path


def script(shell: str, folder: Path) -> Path:
    text = zpull(folder, "--print-completion", shell).out
    path = folder / f"completion.{shell}"
    path.write_text(text)
    return path


def printed(shell: str, folder: Path, code: str) -> set[str]:
    done = subprocess.run(
        [shell, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    return {line.partition("\t")[0].strip() for line in done.stdout.splitlines()}


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_are_printed(shell: str, folder: Path) -> None:
    text = script(shell, folder).read_text()
    for word in ("pull", "limit-rate", "zpull images", "podman"):
        assert word in text
    assert "--not-" not in text
    if shell != "tcsh" and shutil.which(shell):
        subprocess.run([shell, "-n", folder / f"completion.{shell}"], check=True)


@pytest.mark.parametrize(("words", "wanted", "unwanted"), CASES)
def test_bash_completes(
    words: list[str], wanted: set[str], unwanted: set[str], folder: Path
) -> None:
    """As bash calls: words end at colons.

    What is offered stands in for the part behind the last one.
    """
    line = " ".join(["zpull", *words])
    script("bash", folder)
    found = printed(
        "bash",
        folder,
        f"PATH=.:$PATH; . ./completion.bash; COMP_LINE={line!r}; COMP_POINT={len(line)}\n"
        "_zpull 2>/dev/null; printf '%s\\n' \"${COMPREPLY[@]}\"\n",
    )
    begun = words[-1].rpartition(":")
    assert wanted <= {begun[0] + begun[1] + one for one in found}
    assert not unwanted & found


@pytest.mark.skipif(
    shutil.which("fish") is None and not os.environ.get("ZPULL_REQUIRE_PEERS"),
    reason="fish is missing: apt-get install fish",
)
@pytest.mark.parametrize(("words", "wanted", "unwanted"), CASES)
def test_fish_completes(
    words: list[str], wanted: set[str], unwanted: set[str], folder: Path
) -> None:
    script("fish", folder)
    line = " ".join(["zpull", *words])
    found = printed(
        "fish", folder, f"set PATH . $PATH; source completion.fish; complete -C {line!r}"
    )
    assert wanted <= found
    assert not unwanted & found


def test_zsh_offers_images_beside_verbs_and_for_every_word_of_a_pull(folder: Path) -> None:
    text = script("zsh", folder).read_text()
    assert "': :_zpull_verbs_and_images'" in text
    assert "': :_shtab_zpull_commands'" not in text
    assert '"(*)::' not in text
