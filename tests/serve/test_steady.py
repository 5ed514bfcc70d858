"""Many clients and many pulls: one pull upstream, bounded memory, and nothing that grows."""

from __future__ import annotations

import hashlib
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.harness.rough import files
from tests.helpers.servers.registry import Registry
from tests.serve.test_restart import free_port, get, serving

LARGE = image([gzip_layer(make_tar(files(number, 30, 100_000))) for number in (1, 2)])
SMALL = {
    f"t{number}": image([gzip_layer(make_tar(files(number, 3, 2000)))]) for number in range(60)
}


def state(process: int) -> tuple[int, int, int]:
    """The most memory it ever had, in MiB; its threads and open files."""
    told = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    return (
        int(told["VmHWM"].split()[0]) >> 10,
        int(told["Threads"]),
        len(os.listdir(f"/proc/{process}/fd")),  # noqa: PTH208
    )


@contextmanager
def few_files(most: int) -> Iterator[None]:
    """For processes that are started in the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
def test_fifty_clients_are_one_pull_in_bounded_memory(tmp_path: Path) -> None:
    port, right = free_port(), []
    with (
        Registry({"t": LARGE}, rate=20_000_000) as registry,
        serving(tmp_path, port, registry.host) as process,
    ):

        def client() -> None:
            get(port, "/v2/local/demo/manifests/t")
            for layer in LARGE.layers:
                body = get(port, f"/v2/local/demo/blobs/{layer.digest}")
                right.append("sha256:" + hashlib.sha256(body).hexdigest() == layer.digest)

        threads = [threading.Thread(target=client) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        memory, _, _ = state(process.pid)
    assert right == [True] * 100
    assert registry.accounts.blob_bytes <= sum(len(layer.blob) for layer in LARGE.layers) + len(
        LARGE.config
    )
    assert memory <= 300


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
def test_pull_after_pull_leaves_nothing_behind(tmp_path: Path) -> None:
    """Files of the store stay open, but for no more than an eighth of what may be open."""
    port = free_port()
    with (
        few_files(400),
        Registry(SMALL) as registry,
        serving(tmp_path, port, registry.host) as process,
    ):
        seen = []
        for number, one in enumerate(SMALL.values()):
            get(port, f"/v2/local/demo/manifests/t{number}")
            assert get(port, f"/v2/local/demo/blobs/{one.layers[0].digest}") == one.layers[0].blob
            seen.append(state(process.pid))
    early, late = seen[30], seen[-1]
    assert late[0] <= early[0] + 20
    assert late[1] <= early[1] + 20  # those of the last pull may not have ended
    assert late[2] <= early[2] + 20
