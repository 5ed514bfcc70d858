"""What an update will cost is told without holding the layers."""

from __future__ import annotations

import random
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

import zchunked
from tests.peers import corpus
from zchunked.convert.compare import update_cost
from zchunked.operations import converting
from zchunked.results import UpdateCost

MiB = 1 << 20


def test_layers_of_many_small_files_are_never_in_memory_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All header frames of one of 24 MB were read at once, and what lies between them too."""
    rng = random.Random(1)
    old = {f"f{number}": rng.randbytes(8_000) for number in range(3_000)}
    new = old | {f"f{number}": rng.randbytes(8_000) for number in range(50)}
    corpus.layout(tmp_path / "plain", {"v1": [corpus.tar(old)], "v2": [corpus.tar(new)]})
    peaks: list[int] = []

    def traced(*args: object) -> UpdateCost:
        tracemalloc.start()
        try:
            cost = update_cost(*args)  # type: ignore[arg-type]
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        return cost

    monkeypatch.setattr(converting, "update_cost", traced)
    source = f"oci:{tmp_path}/plain"
    with closing(zchunked.Client(tmp_path / "store")) as client:
        done = client.convert(f"{source}:v2", f"oci:{tmp_path}/out:v2", against=f"{source}:v1")
    [peak] = peaks
    assert peak < 12 * MiB < done.size_after
    assert done.update is not None
    assert 400_000 < done.update.lean < done.update.exact < 1 * MiB
