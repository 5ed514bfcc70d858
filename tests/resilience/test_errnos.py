"""Every call that changes the store, or a target, may fail with any errno.

Exit 8 and a line, nothing lost, the next run ends right.

By an injector in a real process (`harness/errno_shim.c`): SQLite's own calls fail too. Which calls
fail is a sample, the same each time; ZPULL_EXHAUSTIVE=1 takes them all, for some twenty minutes.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.harness.command import Ended
from tests.helpers.harness.errnos import CODES, Injector, compiler
from tests.helpers.harness.rough import assert_right, large, run, verified, versions
from tests.helpers.servers.registry import Registry
from zchunked.oci.digest import Digest, digest_of
from zchunked.store import Store

MISSING = compiler() is None and not os.environ.get("ZPULL_REQUIRE_PEERS")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(MISSING, reason="no C compiler: apt-get install gcc"),
]
ADDED = large().layers[0]
SAMPLES = {False: 3, True: 2}
NOTHING = "/dev/null"


@dataclass(frozen=True)
class Command:
    """What runs, in a store that holds these versions; of them `kept` stay whatever happens."""

    words: str
    stored: tuple[str, ...] = ("v1", "v2")
    kept: tuple[str, ...] = ("v1", "v2")
    given: str = NOTHING
    after: tuple[str, ...] = ()
    """What is stored and right after the next run, where that is more than `kept`."""
    is_reading: bool = False
    """It works on a read-only store too."""


COMMANDS = {
    "cold pull": Command("{v2}", stored=(), kept=(), after=("v2",)),
    "update": Command("{v2}", stored=("v1",), kept=("v1",), after=("v1", "v2")),
    "pull to a layout": Command("{v2} --to oci:{out}/made", ("v1",), ("v1",), after=("v2",)),
    "pull to an archive": Command(
        "{v2} --to docker-archive:{out}/made", ("v1",), ("v1",), after=("v2",)
    ),
    "rm": Command("rm {v1}", kept=("v2",)),
    "gc": Command("gc --keep {v2} --format json", kept=("v2",)),
    "gc to a budget": Command("gc --max-size 700kB", kept=()),
    "verify": Command("verify", is_reading=True),
    "images": Command("images", is_reading=True),
    "status": Command("status", is_reading=True),
    "ingest": Command(f"ingest --digest {ADDED.digest}", given="added"),
    "ingest from a pipe": Command(f"ingest --digest {ADDED.digest}", given="pipe"),
    "export oci": Command("export {v2} --to oci:{out}/made"),
    "export oci-archive": Command("export {v2} --to oci-archive:{out}/made"),
    "export docker-archive": Command("export {v2} --to docker-archive:{out}/made"),
    "export an oci stream": Command("export {v2} --to oci-archive:-", is_reading=True),
    "export a docker stream": Command("export {v2} --to docker-archive:-", is_reading=True),
}


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injector]:
    with Injector(tmp_path_factory.mktemp("shim")) as made:
        yield made


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry(versions()) as serving:
        yield serving


@pytest.fixture(scope="module")
def stores(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Homes named by what their stores hold: `v1` whole, and `v2`, which shares frames with it."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "none").mkdir()
    (folder / "added").write_bytes(ADDED.blob)
    os.mkfifo(folder / "pipe")
    run(folder / "v1", registry, "v1")
    shutil.copytree(folder / "v1", folder / "v1v2")
    run(folder / "v1v2", registry, "v2", "--exact")
    return folder


@pytest.mark.parametrize("reads", [False, True], ids=["writes", "reads"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_fails(
    name: str, reads: bool, injector: Injector, registry: Registry, stores: Path, swift: Path
) -> None:
    trial = Trial(COMMANDS[name], injector, registry, stores, swift)
    ended, calls = trial.run(reads=reads)
    assert ended.code == 0, ended.err
    assert calls > 3, "the injector sees them"
    assert "compact" not in ended.out or '"compacted_files": 1' in ended.out
    made, weight = trial.made(ended), trial.weight()
    for place, code, once in cases(name, calls, reads=reads):
        said = f"{name}: call {place} of {calls}, {code}, {'once' if once else 'from then on'}"
        ended, _ = trial.run(code=CODES[code], at=place, once=once, reads=reads)
        trial.assert_orderly(ended, made, said)
        if (place, code, once) == (1, "EROFS", False):
            assert ended.code == (0 if trial.command.is_reading else 8), (said, ended.err)
        trial.assert_next_run_is_right(made, weight, said)


def cases(name: str, calls: int, *, reads: bool) -> Iterator[tuple[int, str, bool]]:
    """Which call fails, how, and whether it is the last one that does."""
    names = [code for code in CODES if not reads or code in ("EIO", "EMFILE")]
    is_all = bool(os.environ.get("ZPULL_EXHAUSTIVE"))
    count = min(calls, calls if is_all else SAMPLES[reads])
    places = sorted(random.Random(name).sample(range(1, calls + 1), count))
    if not reads:
        yield 1, "EROFS", False  # as a file system that is read-only from the start
    for number, place in enumerate(places):
        yield place, names[number % len(names)], bool(number % 2)
        if is_all:
            yield place, names[(number + 2) % len(names)], not number % 2


@dataclass
class Trial:
    """One command over and over, each time in a new copy of the same home."""

    command: Command
    injector: Injector
    registry: Registry
    stores: Path
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(
        self,
        *,
        afresh: bool = True,
        code: int = 0,
        at: int = 0,
        once: bool = False,
        reads: bool = False,
    ) -> tuple[Ended, int]:
        out = self.home / "out"
        if afresh:
            shutil.rmtree(self.home, ignore_errors=True)
            shutil.copytree(self.stores / ("".join(self.command.stored) or "none"), self.home)
            out.mkdir()
        names = {tag: self.registry.reference(tag) for tag in versions()} | {"out": str(out)}
        words = self.command.words.format_map(names).split()
        given = self.stores / self.command.given
        # a command that never opens the pipe does not hold up the end of the tests
        feeder = (
            threading.Thread(target=feed, args=(given,), daemon=True) if given.is_fifo() else None
        )
        if feeder:
            feeder.start()
        ended, calls = self.injector.run(
            self.home, *words, given=str(given), code=code, at=at, once=once, reads=reads
        )
        if feeder:
            feeder.join()
        return ended, calls

    def made(self, ended: Ended) -> dict[str, Digest]:
        """What it wrote, outside of the store: digests by path, standard output's by none."""
        out = self.home / "out"
        found = {str(path.relative_to(out)): digest_of(path.read_bytes())
                 for path in out.rglob("*") if path.is_file()}  # fmt: skip
        return found | ({"": digest_of(ended.raw)} if self.command.words.endswith(":-") else {})

    def weight(self) -> int:
        return sum(path.stat().st_size for path in (self.home / "store" / "blobs").iterdir())

    def assert_orderly(self, ended: Ended, made: dict[str, Digest], said: str) -> None:
        assert ended.code in {0, 8}, (said, ended.err)
        assert bool(ended.error) == bool(ended.code), (said, ended.err)
        assert "Exception ignored" not in ended.err, (said, ended.err)
        found = self.made(ended)
        if not ended.code:
            assert found == made, said
        if "made" in found or "made/index.json" in found:
            assert made.items() <= found.items(), f"{said}: a target is absent or complete"
        if (self.home / "store").exists():
            assert verified(self.home).damaged == [], said
        for tag in self.command.kept:
            assert_right(self.home, self.registry, tag)

    def assert_next_run_is_right(self, made: dict[str, Digest], weight: int, said: str) -> None:
        ended, _ = self.run(afresh=False)
        is_done = self.command.words.startswith("rm") and ended.code == 3
        assert not ended.code or is_done, (said, ended.err)
        assert made.items() <= self.made(ended).items(), said
        for tag in (*self.command.kept, *self.command.after):
            assert_right(self.home, self.registry, tag)
        if self.command.words.startswith("gc"):
            assert self.weight() <= weight, said
        if self.command.given != NOTHING:
            with Store(self.home / "store") as store:
                assert store.is_whole(Digest(ADDED.digest)), said


def feed(pipe: Path) -> None:
    with suppress(BrokenPipeError), pipe.open("wb") as into:
        into.write(ADDED.blob)
