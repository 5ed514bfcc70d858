"""Every call that changes the store may fail, with any errno: exit 8 and a line, nothing lost, the
next run ends right.

By an injector in a real process (`harness/errno_shim.c`): SQLite's own calls fail too.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.harness.errnos import CODES, Injector, compiler
from tests.helpers.harness.rough import assert_right, run, verified, versions
from tests.helpers.servers.registry import Registry

MISSING = compiler() is None and not os.environ.get("ZPULL_REQUIRE_PEERS")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(MISSING, reason="no C compiler: apt-get install gcc"),
]
PLACES = (0.03, 0.3, 0.6, 0.95)
"""Of the calls that a pull makes, which one is the first to fail, as a share of all."""


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Injector:
    return Injector(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store holds v1."""
    home = tmp_path_factory.mktemp("before")
    with Registry(versions()) as registry:
        run(home, registry, "v1")
    return home


@pytest.fixture(scope="module")
def calls(injector: Injector, before: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    home = tmp_path_factory.mktemp("counted") / "home"
    shutil.copytree(before, home)
    with Registry(versions()) as registry:
        ended, count = injector.run(home, registry.reference("v2"))
    assert ended.code == 0
    assert count > 50, "the injector sees them"
    return count


@pytest.mark.parametrize("name", CODES)
def test_an_update_on_a_disk_that_fails_from_some_call_on(
    name: str, injector: Injector, before: Path, calls: int, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with Registry(versions()) as registry:
        for place in PLACES:
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(before, home)
            ended, _ = injector.run(
                home, registry.reference("v2"), code=CODES[name], at=max(int(place * calls), 1)
            )
            assert ended.code in ({8} if place < 0.9 else {0, 8}), (place, ended.err)
            if ended.code:
                assert ended.error, "one line says what happened"
            assert verified(home).damaged == []
            run(home, registry, "v2")
            assert_right(home, registry, "v2")


@pytest.mark.parametrize("name", CODES)
def test_a_call_that_fails_once(
    name: str, injector: Injector, before: Path, calls: int, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with Registry(versions()) as registry:
        for place in PLACES[1::2]:
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(before, home)
            ended, _ = injector.run(
                home, registry.reference("v2"), code=CODES[name], at=int(place * calls), once=True
            )
            assert ended.code in {0, 8}, (place, ended.err)
            run(home, registry, "v2")
            assert_right(home, registry, "v2")
