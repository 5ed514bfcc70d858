"""`make fuzz`: atheris, guided by coverage, where it is installed.

The property tests look after the rest.

python -m tests.fuzz [SECONDS] [PARSER…]
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

_SECONDS = 60
_FOLDER = Path(".cache/fuzz")
_DONE = re.compile(r"Done (\d+) runs")
_COVERED = re.compile(r"cov: (\d+)")
_LAST_LINES = 30


def main(words: list[str]) -> int:
    """Seconds for each parser.

    What was learnt stays in `.cache/fuzz`, so that the next run goes on from there, and so does an
    input that crashes a parser. 1 if there was one.
    """
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: hypothesis looks alone (pip install atheris)")
        return 0
    if words[:1] == ["--one"]:
        return _one(words[1], words[2:])
    from tests.fuzz.parsers import PARSERS, seeds  # noqa: PLC0415

    seconds = int(words[0]) if words else _SECONDS
    honest = seeds()
    results = [_run(name, honest[name], seconds) for name in words[1:] or PARSERS]
    return int(not all(results))


def _run(name: str, seeds: list[bytes], seconds: int) -> bool:
    """Look at one parser in a process of its own; whether all was well."""
    corpus = _FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds):
        Path(corpus, f"seed-{number}").write_bytes(data)
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={_FOLDER}/{name}-",
        "-rss_limit_mb=512",
        "-timeout=10",
    ]
    argv = [sys.executable, "-m", "tests.fuzz", "--one", name, str(corpus), *options]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode:
        print(f"{name}: failed", *done.stderr.splitlines()[-_LAST_LINES:], sep="\n", flush=True)
        return False
    runs, covered = _DONE.search(done.stderr), _COVERED.findall(done.stderr)
    print(
        f"{name}: {runs[1] if runs else 0} inputs, {covered[-1] if covered else 0} branches",
        flush=True,
    )
    return True


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
