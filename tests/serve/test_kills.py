"""The server is killed again and again, beside pulls, behind an upstream that flips bits."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from tests.helpers.build.front import chunked_layer, gzip_layer, image, make_tar, sha256
from tests.helpers.harness.command import ARGV, environment, zpull
from tests.helpers.harness.rough import files
from tests.helpers.servers.faults import flip, on, reset
from tests.helpers.servers.registry import Registry
from tests.serve.test_restart import free_port, get, serving

IMAGE = image(
    [gzip_layer(make_tar(files(5, 60, 50_000))), chunked_layer(make_tar(files(6, 60, 40_000)))]
)


def test_kills_beside_pulls_behind_a_bad_upstream(tmp_path: Path) -> None:
    """Clients that prove what they put together have it in the end, and the store is sound."""
    port, is_over = free_port(), threading.Event()
    got: dict[str, bytes] = {}

    def client(digest: str, size: int) -> None:
        body = b""
        while len(body) < size and not is_over.is_set():
            try:
                get(port, "/v2/local/demo/manifests/t")
                body += get(port, f"/v2/local/demo/blobs/{digest}", len(body))
            except OSError:
                time.sleep(0.1)
            if len(body) == size and sha256(body) != digest:
                body = b""  # begun before a kill, and wrong: engines ask for all of it again
        got[digest] = body

    faults = [
        # once: what comes damaged twice is the registry's own damage to a pull, exit 6
        on("blob", flip(5000), probability=0.15, times=1),
        on("blob", reset(after=(20_000, 200_000)), probability=0.3),
    ]
    with Registry({"t": IMAGE}, rate=1_500_000, faults=faults) as registry:
        clients = [
            threading.Thread(target=client, args=(layer.digest, layer.size))
            for layer in IMAGE.layers
        ]
        argv = [*ARGV, registry.reference("t"), "--exact", "-q"]
        pulls = [subprocess.Popen(argv, env=environment(tmp_path)) for _ in range(3)]
        for thread in clients:
            thread.start()
        for _ in range(3):
            with serving(tmp_path, port, registry.host) as process:
                time.sleep(1.5)
                os.kill(process.pid, signal.SIGKILL)
        with serving(tmp_path, port, registry.host):
            for thread in clients:
                thread.join(90)
            is_over.set()
            assert [one.wait(90) for one in pulls] == [0, 0, 0]
    for layer in IMAGE.layers:
        assert got[layer.digest] == layer.blob
    assert zpull(tmp_path, "verify").code == 0
