"""A store that was packed on one machine and unpacked on another.

As good as new whatever came with it, and a clear error where its files are another user's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.harness.command import ARGV, Ended, environment
from tests.helpers.harness.extract import extract
from tests.helpers.harness.rough import assert_right, kill_after, large, run, started, versions
from tests.helpers.servers.registry import Registry

OTHER = 65534
SIZE = sum(map(len, large().blobs.values()))
SAID = ("Permission denied", "belongs to another user", "is read-only")
NO_POWERS = pytest.mark.skipif(
    not os.geteuid()
    and shutil.which("setpriv") is None
    and not os.environ.get("ZPULL_REQUIRE_PEERS"),
    reason="root, and setpriv is missing",
)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry(versions() | {"big": large()}, rate=3_000_000) as serving:
        yield serving


@pytest.fixture(scope="module")
def archive(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a store with an image, and what a pull left that was killed."""
    folder = tmp_path_factory.mktemp("packed")
    run(folder, registry, "v1")
    with started(folder, registry.reference("big")) as process:
        assert kill_after(process, registry, 1_000_000)
        process.communicate()
    with tarfile.open(folder / "store.tar", "w") as packed:
        packed.add(folder / "store", "store")
    registry.wire._rate = None
    return folder / "store.tar"


def unpacked(archive: Path, home: Path) -> Path:
    with tarfile.open(archive) as found:
        extract(found, home)
    return home / "store"


def zpull(home: Path, *args: str) -> Ended:
    """As a user who may do no more than others: root without its powers."""
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if not os.geteuid() else []
    done = subprocess.run(
        [*argv, *ARGV, *args], env=environment(home), capture_output=True, text=True, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def only_read(store: Path) -> None:
    for path in store.rglob("*"):
        if path.is_file():
            path.chmod(0o444)


def marks_of_the_dead(store: Path) -> None:
    (store / "blobs" / "0123456789ab.live").write_text("17\nelsewhere\nboot\n")
    (store / "blobs" / "0123456789ab-1").write_bytes(b"?" * 100_000)


def no_locks(store: Path) -> None:
    for name in ("pins", "claims"):
        (store / name).unlink()


CAME: dict[str, Callable[[Path], None]] = {
    "as it was": lambda store: None,
    "without the right to write": only_read,
    "with marks of the dead": marks_of_the_dead,
    "without locks": no_locks,
}
"""In what state the files are."""


@NO_POWERS
@pytest.mark.parametrize("how", CAME)
def test_a_store_that_came_from_elsewhere_is_as_good_as_new(
    how: str, archive: Path, registry: Registry, tmp_path: Path
) -> None:
    store = unpacked(archive, tmp_path)
    CAME[how](store)
    accounts = registry.accounts
    asked, sent = accounts.count(), accounts.blob_bytes
    ended = zpull(tmp_path, registry.reference("v1"))
    assert ended.code == 0, ended.err
    assert accounts.count() - asked == 1, "the manifest's"
    ended = zpull(tmp_path, registry.reference("big"))
    assert ended.code == 0, ended.err
    assert accounts.blob_bytes - sent < 0.8 * SIZE, "it went on"
    ended = zpull(tmp_path, "gc", "--keep", registry.reference("big"))
    assert ended.code == 0, ended.err
    assert sum(path.stat().st_size for path in store.rglob("*-*[0-9]")) < 1.05 * SIZE + 100_000
    assert not [*store.glob("blobs/*.live"), *store.glob("blobs/*.map")]
    assert zpull(tmp_path, "status", "-q").out == ""
    assert_right(tmp_path, registry, "big")


@NO_POWERS
@pytest.mark.parametrize("name", ["index.sqlite", "pins", "blobs", "*"])
def test_files_of_another_user_are_a_clear_error(
    name: str, archive: Path, registry: Registry, tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.skip("needs root, to give files away")
    store = unpacked(archive, tmp_path)
    for path in [store, *store.rglob("*")] if name == "*" else [store / name]:
        os.chown(path, OTHER, OTHER)
    for args in ([registry.reference("big")], ["gc"], ["rm", registry.reference("v1")]):
        ended = zpull(tmp_path, *args)
        assert ended.code == 8, ended.err
        assert any(said in ended.error for said in SAID), ended.err
    for path in store.rglob("*"):
        os.chown(path, 0, 0)
    os.chown(store, 0, 0)
    assert zpull(tmp_path, registry.reference("v1")).code == 0
    assert_right(tmp_path, registry, "v1")
