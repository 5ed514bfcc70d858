"""Instructions instead of seconds: callgrind counts the same whatever else the machine does.

    python -m tests.bench.counts [--files 10000]

Takes some minutes. Needs valgrind, which knows no SHA instructions: OpenSSL hashes with others,
many times as many. Nor does it know what a cache miss costs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.bench.counted import AFTER, BEFORE, LAYER, STAGES, describe
from tests.helpers.build.front import Image, chunked_layer, image
from tests.helpers.harness.pulls import pull
from tests.helpers.servers.memory import MemorySource
from tests.peers import corpus
from zchunked.store import Store

_SHARE = 0.3  # of the files that change
FAMILIES = {
    "interpreter": r"python",
    "C library": r"/(libc|libm|ld-linux[^/]*)[.-]",
    "sha256": r"libcrypto|_hashlib|_sha\d",
    "zstd": r"zstandard",
    "JSON": r"msgspec",
    "SQLite": r"sqlite",
    "crc64": r"fastcrc",
}
"""Spenders, by the name of the shared object; the first that fits, from the end of this list."""
_OTHERS = "others"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.counts")
    parser.add_argument("--files", type=int, default=10_000, help="of the made-up image")
    files = parser.parse_args(argv).files
    if shutil.which("valgrind") is None:
        print("SKIPPED: valgrind is not here; apt-get install valgrind", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory(prefix="zpull-counts-") as name:
        lay_out(Path(name), files)
        chunks, dumps = count(Path(name))
        print("\n".join(table(zip(STAGES, dumps, strict=True), files, chunks)))
    return 0


def lay_out(folder: Path, files: int) -> None:
    """Make a store with an image, one with both versions of it, and note the second's layer."""
    before = corpus.grow(files, files)
    versions = [_image(version) for version in (before, corpus.change(before, files, share=_SHARE))]
    sources = [MemorySource(version, piece=1 << 20) for version in versions]
    with Store(folder / BEFORE) as store:
        pull(sources[0], store)
    with Store(folder / AFTER) as store:
        pull(sources[0], store)
        found = pull(sources[1], store).image
    assert found is not None
    (folder / LAYER).write_text(
        describe(found.documents.manifest.layers[0], found.config.diff_ids[0])
    )


def _image(files: corpus.Files) -> Image:
    return image([chunked_layer(corpus.tar(files))])


def count(folder: Path) -> tuple[int, list[Counter[str]]]:
    """Chunks of the layer, and instructions by shared object, stage by stage."""
    out = folder / "callgrind"
    argv = [
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        f"--callgrind-out-file={out}",
        "--dump-before=getppid",
    ]
    options = ["--compress-strings=no", "--compress-pos=no", "--dump-line=no"]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONHASHSEED": "0", "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    subprocess.run([sys.executable, "-c", "import tests.bench.counted"], env=env, check=True)
    words = [*argv, *options, sys.executable, "-m", "tests.bench.counted", str(folder)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=env, check=True)
    dumps = [
        spent((folder / f"callgrind.{part}").read_text().splitlines())
        for part in range(1, len(STAGES) + 1)
    ]
    return json.loads(done.stdout)["chunks"], dumps


def spent(lines: Iterable[str]) -> Counter[str]:
    """A callgrind profile's own costs by shared object; called functions count for theirs."""
    found: Counter[str] = Counter()
    holder, is_call = "", False
    for line in lines:
        if line.startswith("ob="):
            holder = line[3:]
        elif line.startswith("calls="):
            is_call = True
        elif re.match(r"\d+ \d+$", line):
            if not is_call:
                found[holder] += int(line.split()[1])
            is_call = False
    return found


def family(path: str) -> str:
    for name, pattern in reversed(FAMILIES.items()):
        if re.search(pattern, path):
            return name
    return _OTHERS


def table(stages: Iterable[tuple[str, Counter[str]]], files: int, chunks: int) -> Iterator[str]:
    names = [*FAMILIES, _OTHERS]
    yield f"Millions of instructions; a layer of {files:,} files, {chunks:,} chunks."
    yield ""
    yield "| | all | per chunk, thousands | " + " | ".join(names) + " |"
    yield "|---|" + "--:|" * (2 + len(names))
    for stage, objects in stages:
        families: Counter[str] = Counter()
        for path, cost in objects.items():
            families[family(path)] += cost
        numbers = [
            families.total() / 1e6,
            families.total() / chunks / 1e3,
            *(families[name] / 1e6 for name in names),
        ]
        yield f"| {stage} | " + " | ".join(f"{number:,.1f}" for number in numbers) + " |"


if __name__ == "__main__":
    sys.exit(main())
