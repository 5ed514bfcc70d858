"""Several processes take in the same blob at once.

It is kept once, and one that dies hands over what it had.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from tests.helpers.harness.command import ARGV, environment, zpull
from tests.helpers.harness.rough import large
from zchunked.maintenance.gc import collect
from zchunked.oci.digest import Digest
from zchunked.options import GcOptions
from zchunked.store import Store

LAYER = large().layers[0]
HALF = LAYER.size // 2


def ingesting(
    home: Path, *options: str, given: IO[bytes] | int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*ARGV, "ingest", "--digest", LAYER.digest, *options],
        env=environment(home),
        stdin=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def weight(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "store" / "blobs").glob("*-*[0-9]"))


def send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin
    process.stdin.write(data)
    process.stdin.flush()


def wait_for(home: Path, size: int) -> None:
    until = time.monotonic() + 30
    while not (home / "store" / "blobs").exists() or weight(home) < size:
        assert time.monotonic() < until
        time.sleep(0.02)


def assert_whole(home: Path) -> None:
    with Store(home / "store") as store:
        assert store.is_whole(Digest(LAYER.digest))
        assert store.read(Digest(LAYER.digest), 0, LAYER.size) == LAYER.blob
    assert weight(home) <= LAYER.size
    assert zpull(home, "status", "-q").out == ""


@pytest.mark.parametrize("size", [(), ("--size", str(LAYER.size))], ids=["pipe", "announced"])
def test_two_at_once_keep_it_once(size: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(LAYER.blob)
    with ExitStack() as stack:
        processes = []
        for _ in range(2):
            piped = stack.enter_context(
                subprocess.Popen(["cat", tmp_path / "blob"], stdout=subprocess.PIPE)
            )
            assert piped.stdout
            processes.append(stack.enter_context(ingesting(tmp_path, *size, given=piped.stdout)))
        for process in processes:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
    assert_whole(tmp_path)


def test_one_that_is_killed_hands_over_what_it_had(tmp_path: Path) -> None:
    size = ("--size", str(LAYER.size))
    with ingesting(tmp_path, *size) as first:
        send(first, LAYER.blob[:HALF])
        wait_for(tmp_path, HALF // 2)
        with ingesting(tmp_path, *size) as second:
            send(second, LAYER.blob[:1000])
            collect(tmp_path / "store", GcOptions())
            first.kill()
            first.communicate()
            had = weight(tmp_path)
            _, err = second.communicate(LAYER.blob[1000:], timeout=60)
            assert second.returncode == 0, err
    assert had >= HALF // 2
    assert_whole(tmp_path)


def test_one_that_is_killed_alone_is_resumed(tmp_path: Path) -> None:
    with ingesting(tmp_path, "--size", str(LAYER.size)) as process:
        send(process, LAYER.blob[:HALF])
        wait_for(tmp_path, HALF // 2)
        process.kill()
        process.communicate()
    said = zpull(tmp_path, "status").out
    assert f"ingest:{LAYER.digest}" in said
    assert "interrupted" in said
    with ingesting(tmp_path, "--size", str(LAYER.size)) as process:
        _, err = process.communicate(LAYER.blob, timeout=60)
        assert process.returncode == 0, err
    assert_whole(tmp_path)
