"""Calls that fail while a store is collected, forgotten, verified, exported or added to: exit 8
and a line, nothing lost, a target absent or complete, the next run ends right.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.harness.errnos import CODES, Injector, compiler
from tests.helpers.harness.rough import assert_right, large, run, verified, versions
from tests.helpers.servers.registry import Registry

MISSING = compiler() is None and not os.environ.get("ZPULL_REQUIRE_PEERS")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(MISSING, reason="no C compiler: apt-get install gcc"),
]
PLACES = (0.1, 0.5, 0.9)
"""Of the calls a command makes, which one is the first to fail: a sample, for each costs 1.5 s."""
ADDED = large().layers[0]
COMMANDS = {
    "rm": ["rm", "{v1}"],
    "gc": ["gc", "--keep", "{v2}"],
    "verify": ["verify"],
    "ingest": ["ingest", "--digest", ADDED.digest],
    "oci": ["export", "{v2}", "--to", "oci:{out}/made"],
    "oci-archive": ["export", "{v2}", "--to", "oci-archive:{out}/made"],
    "docker-archive": ["export", "{v2}", "--to", "docker-archive:{out}/made"],
}


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Injector:
    return Injector(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry(versions()) as serving:
        yield serving


@pytest.fixture(scope="module")
def before(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store holds v1 and v2, which share frames."""
    home = tmp_path_factory.mktemp("before")
    run(home, registry, "v1")
    run(home, registry, "v2")
    (home / "added").write_bytes(ADDED.blob)
    return home


@pytest.mark.parametrize("command", COMMANDS)
def test_upkeep_on_a_disk_that_fails(
    command: str, injector: Injector, registry: Registry, before: Path, tmp_path: Path
) -> None:
    home, out = tmp_path / "home", tmp_path / "home" / "out"
    names = {"v1": registry.reference("v1"), "v2": registry.reference("v2"), "out": str(out)}
    args = [word.format_map(names) for word in COMMANDS[command]]
    below = out if "export" in args else home / "store"

    def attempt(code: int = 0, at: int = 0, *, afresh: bool = True) -> tuple[int, str, int]:
        if afresh:
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(before, home)
            out.mkdir()
        given = str(home / "added")
        ended, calls = injector.run(home, *args, code=code, at=at, below=below, given=given)
        return ended.code, ended.err, calls

    code, err, calls = attempt()
    assert code == 0, err
    assert calls > 3, "the injector sees them"
    refused = set()
    for number, (name, errno) in enumerate(CODES.items()):
        place = PLACES[number % len(PLACES)]
        code, err, _ = attempt(errno, max(int(place * calls), 1))
        assert code in {0, 8}, (name, place, err)
        assert "Traceback" not in err, (name, place, err)
        if code:
            refused.add(name)
            assert err.strip(), "one line says what happened"
            assert not (out / "made").is_file(), "an archive is absent or complete"
            assert not (out / "made" / "index.json").exists(), "so is a layout"
        assert verified(home).damaged == []
        code, err, _ = attempt(afresh=False)
        assert code == 0 or (command == "rm" and code == 3), (name, place, err)
        assert_right(home, registry, "v2")
    assert refused, "a disk that fails is told"
