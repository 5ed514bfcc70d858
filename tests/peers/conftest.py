"""A registry filled once by real writers, for all workers.

Each worker runs a server of its own over the same files.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.servers import peers, swift
from tests.peers import corpus

TAGS = ("v1", "v2")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def once(done: Path, make: Callable[[], None]) -> None:
    """Call `make` if nobody has before.

    Whoever comes in the meantime waits for the one who is at it.
    """
    with done.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make()
            done.touch()


@pytest.fixture(scope="session")
def plain(shared: Path) -> Path:
    """The layout of plain tars that every writer is given.

    V1 and v2 of 3,000 files, on one base of 600.
    """
    folder = shared / "plain"

    def make() -> None:
        base = corpus.tar(corpus.grow(1, 600, under="usr/lib"))
        before = corpus.grow(2, 3_000)
        after = corpus.change(before, 3)
        corpus.layout(folder, {"v1": [base, corpus.tar(before)], "v2": [base, corpus.tar(after)]})

    once(shared / "plain.done", make)
    return folder


@pytest.fixture(scope="session")
def registry(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Server]:
    with peers.docker_registry(
        tmp_path_factory.mktemp("registry"), storage=shared / "storage"
    ) as server:
        yield server


@pytest.fixture(scope="session")
def front(
    registry: peers.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[peers.Server]:
    """An nginx before the registry: pull through it to know the ranges and the bytes."""
    with peers.nginx(tmp_path_factory.mktemp("front"), upstream=registry.url) as server:
        yield server


@pytest.fixture(scope="session")
def new(registry: peers.Server, plain: Path, shared: Path) -> str:
    """The repository `new` on registry and front, tags v1 and v2, generation 4."""
    skopeo = peers.skopeo_new()
    once(shared / "new.done", lambda: push(skopeo, plain, registry, "new"))
    return "new"


@pytest.fixture(scope="session")
def old(registry: peers.Server, plain: Path, shared: Path) -> str:
    """The same images as in `new`, generation 1."""
    skopeo = peers.skopeo_old()
    once(shared / "old.done", lambda: push(skopeo, plain, registry, "old"))
    return "old"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Server]:
    with swift.swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


def push(skopeo: peers.Tool, layout: Path, registry: peers.Server, repository: str) -> None:
    """Convert and push each tag.

    One repository per writer, lest one takes over the blobs of another.
    """
    for tag in TAGS:
        target = f"docker://{registry.host}/{repository}:{tag}"
        skopeo(
            "copy",
            "--dest-tls-verify=false",
            "--dest-compress-format",
            "zstd:chunked",
            f"oci:{layout}:{tag}",
            target,
        )
