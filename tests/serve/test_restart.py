"""The server is killed in the middle of a pull.

Clients that try again get the rest, and no byte comes twice.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.build.front import gzip_layer, image, make_tar
from tests.helpers.harness.command import ARGV, environment, zpull
from tests.helpers.harness.rough import files
from tests.helpers.servers.registry import Registry

IMAGE = image([gzip_layer(make_tar(files(5, 60, 50_000)))])
BLOB = IMAGE.layers[0]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(home: Path, port: int, upstream: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    words = ["serve", "--listen", f"127.0.0.1:{port}", "--upstream", f"local={upstream}", "-q"]
    argv = [*ARGV, *words, *more]
    process = subprocess.Popen(argv, env=environment(home), stderr=subprocess.PIPE)
    try:
        assert process.stderr
        assert b"serving" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def get(port: int, path: str, start: int = 0) -> bytes:
    """What arrived of a blob from `start` on, whole or not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Range": f"bytes={start}-"} if start else {})
        return connection.getresponse().read()
    except http.client.IncompleteRead as error:
        return bytes(error.partial)
    finally:
        connection.close()


def test_a_kill_costs_nothing_that_came(tmp_path: Path) -> None:
    port = free_port()
    path = f"/v2/local/demo/blobs/{BLOB.digest}"
    with Registry({"t": IMAGE}, rate=1_500_000) as registry:
        with serving(tmp_path, port, registry.host) as process:
            get(port, "/v2/local/demo/manifests/t")
            while registry.accounts.blob_bytes < len(BLOB.blob) // 3:
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
        with serving(tmp_path, port, registry.host):
            body = b""
            while len(body) < len(BLOB.blob):
                body += get(port, path, len(body))
        assert body == BLOB.blob
        slack = 600_000  # what the kernel had received and nobody had read
        assert registry.accounts.blob_bytes <= len(BLOB.blob) + len(IMAGE.config) + slack


def test_sigterm_ends_it_in_order(tmp_path: Path) -> None:
    with (
        Registry({"t": IMAGE}) as registry,
        serving(tmp_path, free_port(), registry.host) as process,
    ):
        process.terminate()
        assert process.wait(20) in (0, 143)
        assert process.stderr
        said = process.stderr.read()
        assert b"Traceback" not in said


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = zpull(tmp_path, "serve", "--listen", f"127.0.0.1:{port}", check=False)
    assert failed.code == 8
    expected = f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another"
    assert expected in failed.err
