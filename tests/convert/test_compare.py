"""What an update will cost is told without holding the layers."""

from __future__ import annotations

import random
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

import zchunked
from tests.helpers.build.front import (
    Index,
    gzip_layer,
    image,
    index,
    make_tar,
    write_layout,
)
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


def test_of_all_platforms_the_cost_is_the_sum_of_those_that_both_have(tmp_path: Path) -> None:
    def version(seed: int, *platforms: str) -> Index:
        new = random.Random(seed).randbytes(20_000)
        return index(
            [
                image(
                    [
                        gzip_layer(
                            make_tar({"own": random.Random(name).randbytes(50_000), "new": new})
                        )
                    ],
                    platform=name,
                )
                for name in platforms
            ]
        )

    both = ("linux/amd64", "linux/arm64")
    tags = {"v1": version(1, both[1]), "v2": version(2, *both), "v3": version(3, *both)}
    write_layout(tmp_path / "plain", tags)
    source = f"oci:{tmp_path}/plain"
    with closing(zchunked.Client(tmp_path / "store")) as client:
        costs = [
            client.convert(
                f"{source}:v3", f"oci:{tmp_path}/out:v3", platform=which, against=f"{source}:{old}"
            )
            for old in ("v2", "v1")
            for which in ("all", *both)
            if (old, which) != ("v1", both[0])
        ]
    all_of_two, first, second, all_of_one, again = costs
    assert all_of_two.update is not None
    assert first.update is not None
    assert second.update is not None
    assert all_of_two.update.before == first.update.before + second.update.before
    assert all_of_two.update.lean == first.update.lean + second.update.lean
    assert all_of_one.update == again.update
    assert any("no image for linux/amd64" in note for note in all_of_one.notes)
