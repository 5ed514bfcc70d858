"""Many pulls on one store at once.

Each byte is downloaded once, whoever lives or dies, and beside collections.
"""

from __future__ import annotations

import subprocess
import threading
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.build.front import Image, chunked_layer, gzip_layer, image, make_tar
from tests.helpers.harness.command import zpull
from tests.helpers.harness.pulls import pull
from tests.helpers.harness.rough import assert_right, files, kill_after, run, started
from tests.helpers.servers.faults import Outage
from tests.helpers.servers.memory import MemorySource
from tests.helpers.servers.registry import Registry
from tests.resilience.test_kills import kill_when_read
from zchunked.errors import InterruptedPullError
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import Descriptor
from zchunked.options import GapOptions
from zchunked.pull.processes.claims import Claims
from zchunked.ranges import total
from zchunked.store import Store


@cache
def related() -> dict[str, Image]:
    """Four versions with a common base, whose other layers have most of their files in common."""
    base = gzip_layer(make_tar(files(1, 20, 10_000)))
    common = files(2, 40, 10_000)
    return {
        f"v{number}": image([base, chunked_layer(make_tar(common | files(10 + number, 4, 10_000)))])
        for number in range(4)
    }


@pytest.fixture(scope="module")
def union(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes that one process sends for after the other."""
    with Registry(related()) as registry:
        home = tmp_path_factory.mktemp("one")
        for tag in related():
            run(home, registry, tag)
        return registry.accounts.body_bytes


def ended(process: subprocess.Popen[str]) -> int:
    _, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode


def test_eight_processes_download_the_union_once(union: int, tmp_path: Path) -> None:
    with Registry(related(), rate=4_000_000) as registry, ExitStack() as stack:
        every = [
            stack.enter_context(started(tmp_path, registry.reference(tag)))
            for tag in [*related()] * 2
        ]
        assert [ended(process) for process in every] == [0] * 8
        assert registry.accounts.body_bytes <= 1.1 * union
        for tag in related():
            assert_right(tmp_path, registry, tag)


def test_one_that_dies_hands_its_work_over(union: int, tmp_path: Path) -> None:
    outages: list[Outage] = []
    with Registry(related(), rate=1_500_000, outages=outages) as registry, ExitStack() as stack:
        first = stack.enter_context(started(tmp_path, registry.reference("v0")))
        assert kill_after(first, registry, 1, 0), "signal 0 only waits until it has begun"
        rest = [
            stack.enter_context(started(tmp_path, registry.reference(tag))) for tag in related()
        ]
        assert kill_when_read(first, registry, outages, 200_000)
        first.wait()
        assert [ended(process) for process in rest] == [0] * 4
        # What the dead one had not read comes again, perhaps as frames of another version: up to 64
        # kB a connection.
        assert registry.accounts.body_bytes <= 1.1 * union + 8 * 65_536
        for tag in related():
            assert_right(tmp_path, registry, tag)


def test_a_collection_in_a_loop_beside_them_costs_nothing(union: int, tmp_path: Path) -> None:
    with Registry(related(), rate=4_000_000) as registry, ExitStack() as stack:
        every = [
            stack.enter_context(started(tmp_path, registry.reference(tag))) for tag in related()
        ]
        while any(process.poll() is None for process in every):
            assert zpull(tmp_path, "gc", "-q").code == 0
        assert [ended(process) for process in every] == [0] * 4
        assert registry.accounts.body_bytes <= 1.1 * union
        zpull(tmp_path, "gc")
        for tag in related():
            assert_right(tmp_path, registry, tag)


# ── the claims themselves ──


LAYERS = [digest_of(bytes([number])) for number in range(3)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def test_claims_are_acquired_and_released(tmp_path: Path) -> None:
    with Store(tmp_path) as one, Store(tmp_path) as other:
        first, second = Claims(one, threading.Event()), Claims(other, threading.Event())
        assert list(first.acquire("host.example/app", LAYERS, lambda: None)) == []
        notes = second.acquire("host.example/other", LAYERS[:1], first.release)
        assert [text.partition(";")[0] for text in notes] == [
            "another process is downloading parts of this image into the store"
        ]
        second.release()


def test_one_that_brings_no_byte_is_not_waited_for(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with Store(tmp_path) as one, Store(tmp_path) as other:
        first, second = Claims(one, stop), Claims(other, stop, Clock())
        assert list(first.acquire("host.example/app", LAYERS, lambda: None)) == []
        assert (
            "going on without it"
            in list(second.acquire("host.example/app", LAYERS, lambda: None))[-1]
        )


def test_whoever_waits_can_be_interrupted(tmp_path: Path) -> None:
    def interrupted() -> None:
        raise InterruptedPullError("interrupted")

    with Store(tmp_path) as one, Store(tmp_path) as other:
        first, second = Claims(one, threading.Event()), Claims(other, threading.Event())
        assert list(first.acquire("host.example/app", LAYERS, lambda: None)) == []
        with pytest.raises(InterruptedPullError):
            list(second.acquire("host.example/app", LAYERS, interrupted))
        second.release()


def test_what_the_other_brought_is_seen_afterwards(tmp_path: Path) -> None:
    blob = Digest(LAYERS[0])
    with Store(tmp_path) as one, Store(tmp_path) as other:
        first, second = Claims(one, threading.Event()), Claims(other, threading.Event())
        assert list(first.acquire("host.example/app", LAYERS, lambda: None)) == []
        assert other.covered(blob) == []

        def bring() -> None:
            writer = one.writer(blob, 4)
            writer.write(0, b"data")
            writer.close()
            first.release()

        list(second.acquire("host.example/app", LAYERS, bring))
        assert other.read(blob, 0, 4) == b"data"


def test_what_an_interrupted_pull_received_is_found_by_another_version(tmp_path: Path) -> None:
    class EndedError(Exception):
        pass

    one, two = related()["v0"], related()["v1"]

    def kill(blob: Descriptor, at: int, piece: bytes) -> bytes:
        if blob.digest == one.layers[1].digest and 200_000 < at < 300_000:
            raise EndedError
        return piece

    lean = GapOptions(max_gap=0)
    with Store(tmp_path) as store, pytest.raises(EndedError):
        pull(MemorySource(one, change=kill), store, "host.example/app:v0", jobs=1, gaps=lean)
    with Store(tmp_path) as store:
        # as after a kill: what was received has extents, and no more
        store._index.rows("DELETE FROM chunks")
        layer = Digest(one.layers[1].digest)
        received = total(store.covered(layer))
        outcome = pull(MemorySource(two), store, "host.example/app:v1", gaps=lean)
        assert received > 100_000
        assert outcome.receipt.bytes.needed < sum(layer.size for layer in two.layers) - 100_000
