"""Conversions of an image by any number of workers, and those that are killed."""

from __future__ import annotations

import random
import signal
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

import zchunked
from tests.helpers.harness import command
from tests.peers import corpus
from zchunked.convert.image import Converter
from zchunked.operations import conversion


def layout(folder: Path, *sizes: int) -> str:
    """An image of plain tars: a layer of a hundred small files and a large one for each size."""
    rng = random.Random(sum(sizes))
    layers = []
    for number, size in enumerate(sizes):
        files = {f"{number}/{name}": rng.randbytes(rng.randrange(4_000)) for name in range(100)}
        layers.append(corpus.tar(files | {f"{number}/large": rng.randbytes(size)}))
    corpus.layout(folder, {"t": layers})
    return f"oci:{folder}:t"


def test_workers_leave_no_trace_in_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = layout(tmp_path / "plain", 3_000_000, 700_000, 0)
    digests = set()
    for workers in (1, 2, 7):
        monkeypatch.setattr(conversion, "Converter", partial(Converter, workers=workers))
        home = tmp_path / f"{workers}"
        with closing(zchunked.Client(home / "store")) as client:
            digests.add(client.convert(source, f"oci:{home}/out:t").manifest_digest)
    assert len(digests) == 1


def test_layers_that_were_done_before_a_kill_are_not_written_again(tmp_path: Path) -> None:
    """Two layers at a time: the small one is there long before the large one."""
    source = layout(tmp_path / "plain", 1_000, 60_000_000)
    words = ("convert", source, f"oci:{tmp_path}/out:t", "--level", "12")
    argv = [*command.ARGV, *words, "--progress", "plain"]
    with subprocess.Popen(
        argv, env=command.environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert any(" → " in line for line in process.stderr), "a layer is done"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    [image] = command.receipt(tmp_path, *words)["images"]
    assert [layer["outcome"] for layer in image["layers"]] == ["remembered", "converted"]
    whole = command.receipt(tmp_path / "other", *words[:2], f"oci:{tmp_path}/again:t", *words[3:])
    assert image == whole["images"][0] | {"layers": image["layers"]}
