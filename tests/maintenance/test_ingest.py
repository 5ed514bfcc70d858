"""Blobs that are announced before they come.

Taken in, resumed, refused when they are others; and used by pulls.
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from tests.helpers.harness.command import ARGV, environment, zpull
from tests.helpers.harness.pulls import pull
from tests.helpers.harness.rough import large, versions
from tests.helpers.servers.memory import MemorySource
from zchunked.client import Client
from zchunked.errors import FormatError, IntegrityError
from zchunked.maintenance.gc import collect
from zchunked.oci.digest import Digest
from zchunked.options import DAY, GapOptions, GcOptions
from zchunked.store import Store

LAYER = large().layers[0]


class Pipe(io.BytesIO):
    """Nobody knows how long it is."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation


@pytest.mark.parametrize(("source", "size"), [(io.BytesIO, None), (Pipe, LAYER.size), (Pipe, None)])
def test_a_blob_is_taken_in(source: type[io.BytesIO], size: int | None, tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        assert client.ingest(LAYER.digest, source(LAYER.blob), size=size) == LAYER.size
        assert client.ingest(LAYER.digest, Pipe(b""), size=size) == LAYER.size, "it is there"
        assert client.status() == []
    with Store(tmp_path) as store:
        assert store.is_whole(Digest(LAYER.digest))


def test_one_that_is_cut_short_is_resumed_and_told_meanwhile(tmp_path: Path) -> None:
    half = LAYER.blob[: LAYER.size // 2]
    with (
        Client(tmp_path) as client,
        pytest.raises(IntegrityError, match="send it again, these are kept"),
    ):
        client.ingest(LAYER.digest, Pipe(half), size=LAYER.size)
    with Client(tmp_path) as client:
        (told,) = client.status()
        assert (told.here, told.size, told.is_running) == (len(half), LAYER.size, False)
        collect(tmp_path, GcOptions())
        written = sum(path.stat().st_size for path in (tmp_path / "blobs").iterdir())
        assert client.ingest(LAYER.digest, Pipe(LAYER.blob), size=LAYER.size) == LAYER.size
        assert sum(path.stat().st_size for path in (tmp_path / "blobs").iterdir()) <= LAYER.size
        assert written == len(half)


@pytest.mark.parametrize("size", [LAYER.size, LAYER.size - 1, None])
def test_other_bytes_are_refused_and_not_kept(size: int | None, tmp_path: Path) -> None:
    wrong = bytes([LAYER.blob[0] ^ 1]) + LAYER.blob[1:]
    with Client(tmp_path) as client, pytest.raises(IntegrityError, match="nothing of it is kept"):
        client.ingest(LAYER.digest, Pipe(wrong), size=size)
    with Store(tmp_path) as store:
        assert store.covered(Digest(LAYER.digest)) == []
    with Client(tmp_path) as client, pytest.raises(FormatError):
        client.ingest("sha512:00", Pipe(b""))


def test_a_pull_finds_what_was_taken_in(tmp_path: Path) -> None:
    made = versions()["v1"]
    with Client(tmp_path) as client:
        for layer in made.layers:
            client.ingest(layer.digest, io.BytesIO(layer.blob))
    with Store(tmp_path) as store:
        outcome = pull(MemorySource(made), store, gaps=GapOptions(exact=True))
        began = store.pulls.rows()[0].began
    assert outcome.receipt.bytes.needed == 0
    collect(tmp_path, GcOptions(), now=lambda: began + 15 * DAY)
    with Store(tmp_path) as store:
        assert all(store.is_whole(Digest(layer.digest)) for layer in made.layers), (
            "the image keeps it"
        )
        assert store.pulls.rows() == []


def test_the_command_reads_standard_input(tmp_path: Path) -> None:
    argv = [*ARGV, "ingest", "--digest", LAYER.digest, "--size", str(LAYER.size)]
    done = subprocess.run(
        argv, input=LAYER.blob, env=environment(tmp_path), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == LAYER.digest
    assert zpull(tmp_path, "ingest", check=False).code == 2
    assert zpull(
        tmp_path, "ingest", "--digest", LAYER.digest.replace("sha256", "md5"), check=False
    ).code in (2, 7)


def test_a_client_removes_and_collects(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for tag, made in versions().items():
            pull(MemorySource(made), store, f"host.example/app:{tag}")
    with Client(tmp_path) as client:
        assert [one.name for one in client.remove("host.example/app:v1")] == ["host.example/app:v1"]
        assert client.gc().bytes > 0
        freed = client.gc(keep=["host.example/app:v2"], options=GcOptions(is_dry=True))
        assert freed.images == []
