"""`make bench`: build or find the corpora, run the suites, write the tables.

    python -m tests.bench small|full [--only SUITES] [--image NAME] [--disk] [--report]

A full run writes docs/benchmarks.md and docs/benchmarks.svg, a small one writes beside its results
in .cache/bench/. With --only (pulls,habits,growth,converts), what other suites found in earlier
runs stays in the tables. --report measures nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench import converting, machine, report, suites
from tests.bench.clients import freeze, manifest
from tests.bench.corpora import HOME, Corpora, corpora
from tests.bench.link import LINKS
from tests.bench.results import Results, Row, load

_DOCS = Path(__file__).parents[2] / "docs"
_SUITES = ("pulls", "habits", "growth", "converts")
_FEW = ("several ranges", "400 to several", "no ranges: 200 to one")
_MOUNTED = "ZPULL_BENCH_MOUNTED"
_MOUNT = 'mount -t tmpfs -o size=75% none "$0" && exec "$@"'


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and links end with us
    folder = HOME / options.size
    work = folder / "work"
    kept = load(folder / "results.json")
    if not options.report:
        found = corpora(options.size, _say)
        _in_memory(work, disk=options.disk)
        with ExitStack() as stack:
            _measure(kept, found, options, work, stack)
        kept.save(folder / "results.json")
    target = _DOCS if options.size == "full" else folder
    report.write(kept, target)
    _say(f"wrote {target}/benchmarks.md and benchmarks.svg")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("size", choices=("small", "full"), nargs="?", default="small")
    parser.add_argument(
        "--only", default=",".join(_SUITES), help="suites, with commas between them"
    )
    parser.add_argument("--image", help="of the pulls: only this image")
    parser.add_argument(
        "--links", default="0,1,2,3", help="of the pulls: only over these, from 0 for loopback"
    )
    parser.add_argument(
        "--repeats", type=int, help="of what is done over a fast link; the median counts"
    )
    parser.add_argument(
        "--disk", action="store_true", help="clients work on the disk instead of in memory"
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing, write the tables again"
    )
    return parser.parse_args()


def _in_memory(work: Path, *, disk: bool) -> None:
    """Start over with a file system in memory as the clients' disk, seen by us alone; root only."""
    if not os.environ.get(_MOUNTED):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        if not disk and os.geteuid() == 0:
            os.environ[_MOUNTED] = "1"
            again = (sys.executable, "-m", "tests.bench", *sys.argv[1:])
            os.execvp("unshare", ["unshare", "--mount", "sh", "-c", _MOUNT, str(work), *again])


def _measure(
    kept: Results, found: Corpora, options: argparse.Namespace, work: Path, stack: ExitStack
) -> None:
    front, registry = suites.serving(work / "servers", found.storage, stack)
    repeats = options.repeats or (3 if options.size == "full" else 1)
    links, habits = (LINKS, tuple(suites.HABITS)) if options.size == "full" else (LINKS[::2], _FEW)
    asked = [link for link in links if str(LINKS.index(link)) in options.links.split(",")]
    bench = suites.Bench(work, front, registry, repeats, work / "engine", asked, habits, _say)
    images = [image for image in found.images if options.image in {None, image}]
    kept.about |= machine.about("disk" if options.disk else "memory", repeats)
    kept.about["engine"] = freeze(bench.engine)
    kept.sizes |= {image: manifest(front.host, image, suites.AFTER).size for image in found.images}
    runs: dict[str, Callable[[], Iterator[Row]]] = {
        "pulls": lambda: (row for image in images for row in suites.pulls(bench, image)),
        "habits": lambda: suites.habits(bench, "node"),
        "growth": lambda: suites.growth(bench, found.grown),
        "converts": lambda: converting.converts(bench),
    }
    for name in options.only.split(","):
        _say(f"{name}:")
        kept.replace(list(runs[name]()))
        kept.save(work.parent / "results.json")  # at once: the next suite may fail


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
