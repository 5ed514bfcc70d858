"""Ctrl-C, SIGTERM and SIGHUP: one line, a receipt, nothing half-made, whenever they come."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.build.golden import Golden
from tests.helpers.harness.command import environment
from tests.helpers.servers.registry import Registry

DEMO = Golden("demo", "demo-v1").layout
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def started(home: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "zchunked", *argv],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_a_pull_that_is_ended_says_so_and_writes_its_receipt(
    number: int, code: int, tmp_path: Path
) -> None:
    with Registry(DEMO, rate=4000) as registry:
        target = tmp_path / "out.tar"
        argv = (registry.reference("demo-v1"), "--format", "json", "--to", f"oci-archive:{target}")
        with started(tmp_path, *argv) as pull:
            while registry.accounts.blob_bytes < 2000 and pull.poll() is None:
                time.sleep(0.02)
            pull.send_signal(number)
            pull.send_signal(number)  # as `timeout` does
            out, err = pull.communicate(timeout=60)
    assert pull.returncode == code, err
    assert "Traceback" not in err
    assert err.count("zpull: error:") == 1
    assert "run the same command to resume" in err
    assert "interrupted" in json.loads(out)["error"]
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.parametrize("after", [0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3])
def test_ctrl_c_while_modules_are_loaded_is_no_traceback(after: float, tmp_path: Path) -> None:
    code = (
        "import os, sys, threading\nfrom zchunked import cli\nrun = cli.run\n"
        "timer = threading.Timer(float(sys.argv.pop()), lambda: os.kill(os.getpid(), "
        "2))\ntimer.daemon = True\n"
        "cli.run = lambda *words: (timer.start(), run(*words))[1]\ncli.main()\n"
    )
    with Registry(DEMO, latency=0.5) as registry:
        argv = [sys.executable, "-c", code, registry.reference("demo-v1"), str(after)]
        done = subprocess.run(
            argv, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("zpull: error: interrupted") == 1


def test_an_exception_never_comes_inside_an_import(tmp_path: Path) -> None:
    """The module that is being loaded is complete when the signal takes effect."""
    tmp_path.joinpath("slow.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), "
        "signal.SIGINT)\ntime.sleep(0.2)\nis_complete = True\n"
    )
    code = (
        "import sys, time\nfrom zchunked.cli.signals import "
        "Signals\nSignals()\nsys.path.insert(0, '.')\n"
        "try:\n    import slow\n    time.sleep(5)\nexcept KeyboardInterrupt:\n    "
        "print(slow.is_complete)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom zchunked.cli.signals import Signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nSignals()\nos.kill(os.getpid(), "
        "signal.SIGHUP)\nprint('on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "on\n"
