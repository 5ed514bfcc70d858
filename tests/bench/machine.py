"""The surroundings of a run, in general words, without names of machines."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime

from tests.helpers.servers import peers


def about(work: str, repeats: int) -> dict[str, str]:
    """`work` is where clients keep their files: disk or memory."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _memory(),
        "kernel": re.match(r"\d+\.\d+", platform.release())[0],  # type: ignore[index]
        "python": platform.python_version(),
        "zpull": _version(sys.executable, "-m", "zchunked", "--version"),
        "skopeo": _version(*peers.skopeo_new().argv, "--version"),
        "podman": _version(str(peers.TRIXIE / "run"), "podman", "--version"),
        "curl": _version("curl", "--version"),
        "nginx": _version(shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx", "-v"),
        "docker-registry": _version("docker-registry", "--version"),
        "load": f"{os.getloadavg()[0]:.1f}",
        "work": work,
        "repeats": str(repeats),
    }


def _memory() -> str:
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{size / 2**30:.0f} GiB"


def _version(*argv: str) -> str:
    """The first number with a dot in it that the command says of itself."""
    done = subprocess.run(
        argv, capture_output=True, text=True, env=peers.environment(), check=False
    )
    found = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"
