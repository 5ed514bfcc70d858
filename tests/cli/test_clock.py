"""The command on a machine whose clock was never set.

Nothing is refused for it, and no library complains of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers.harness.command import environment, zpull
from tests.helpers.harness.rough import versions
from tests.helpers.servers.peers import require
from tests.helpers.servers.registry import Registry


def at(moment: str, home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run at that time of the wall clock; warnings are shown unless we keep them away."""
    argv = ["faketime", moment, sys.executable, "-m", "zchunked", *map(str, words)]
    done = subprocess.run(
        argv, env=environment(home), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "arning" not in done.stderr
    return done


def test_a_clock_that_was_never_set(tmp_path: Path) -> None:
    require("faketime")
    with Registry(versions(), auth="bearer", redirect=True, token_seconds=60) as registry:
        v1, v2 = registry.reference("v1"), registry.reference("v2")
        zpull(tmp_path, v1)
        said = at("1970-01-02", tmp_path, v2, "--progress", "json").stderr
    assert [json.loads(line)["event"] for line in said.splitlines()][-1] == "pulled"
    assert v2 in at("1970-01-01 00:00:00", tmp_path, "images").stdout
    for words in (
        ["gc", "--max-age", "60d"],
        ["export", v2, "--to", f"oci-archive:{tmp_path}/v2.tar"],
    ):
        assert at("1970-01-02", tmp_path, *words).stderr == ""
    assert "just now" not in zpull(tmp_path, "images").out.splitlines()[-1]
