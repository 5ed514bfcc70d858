"""`make fuzz`: atheris, guided by coverage, where it is installed; the property tests look after the rest.

python -m tests.fuzz [SECONDS] [PARSER…]
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

_SECONDS = 60


def main(words: list[str]) -> int:
    """Seconds for each parser; an input that crashes one is left in the working directory by the fuzzer."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: hypothesis looks alone (pip install atheris, for Python 3.11 and 3.12)")
        return 0
    if words[:1] == ["--one"]:
        return _one(words[1], words[2:])
    from tests.fuzz.parsers import PARSERS, seeds  # noqa: PLC0415

    seconds = int(words[0]) if words else _SECONDS
    for name in words[1:] or PARSERS:
        with tempfile.TemporaryDirectory() as folder:
            for number, data in enumerate(seeds()[name]):
                Path(folder, str(number)).write_bytes(data)
            argv = [sys.executable, "-m", "tests.fuzz", "--one", name, folder, f"-max_total_time={seconds}"]
            if subprocess.run(argv, check=False).returncode:
                return 1
    return 0


def _one(name: str, options: list[str]) -> int:
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["zchunked"]):
        from tests.fuzz.parsers import PARSERS  # noqa: PLC0415
        from zchunked.errors import ZPullError  # noqa: PLC0415

    def look(data: bytes) -> None:
        try:
            PARSERS[name](data)
        except ZPullError:
            return

    atheris.Setup(["fuzz", *options], look)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
