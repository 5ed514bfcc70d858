"""The server and eight `zpull` on one store at once: each gets its images, and all is sound."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.helpers.build.front import chunked_layer, gzip_layer, image, make_tar
from tests.helpers.harness.command import ARGV, environment, zpull
from tests.helpers.harness.rough import files
from tests.helpers.servers.registry import Registry
from tests.serve.test_restart import free_port, get, serving

BASE = gzip_layer(make_tar(files(1, 20, 50_000)))
IMAGES = {
    f"v{number}": image(
        [BASE, chunked_layer(make_tar(files(2, 30, 5000) | files(10 + number, 2, 4000)))]
    )
    for number in range(4)
}


def test_eight_pulls_beside_a_server(tmp_path: Path) -> None:
    """Each tag is pulled by two processes and by two clients of the server."""
    port = free_port()

    def pull(reference: str) -> tuple[int, str]:
        argv = [*ARGV, reference, "--exact", "-q"]
        done = subprocess.run(
            argv, env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr

    def client(tag: str) -> bool:
        manifest = get(port, f"/v2/local/demo/manifests/{tag}")
        blobs = [get(port, f"/v2/local/demo/blobs/{layer.digest}") for layer in IMAGES[tag].layers]
        return manifest == IMAGES[tag].manifest and blobs == [
            layer.blob for layer in IMAGES[tag].layers
        ]

    tags = [*IMAGES] * 2
    with (
        Registry(IMAGES, rate=3_000_000) as registry,
        serving(tmp_path, port, registry.host),
        ThreadPoolExecutor(16) as threads,
    ):
        served = [threads.submit(client, tag) for tag in tags]
        pulled = [threads.submit(pull, registry.reference(tag)) for tag in tags]
        assert [one.result() for one in served] == [True] * 8
        assert [one.result() for one in pulled] == [(0, "")] * 8
    listed = zpull(tmp_path, "images").out
    assert all(registry.reference(tag) in listed for tag in IMAGES)
    assert zpull(tmp_path, "verify").code == 0
