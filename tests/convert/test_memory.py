"""Memory of a conversion depends neither on the size of a layer nor on that of a file in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.harness.forked import Forks, Run
from tests.peers import corpus

MiB = 1 << 20
MOST = 300 * MiB
_NOISE = random.Random(3).randbytes(2 * MiB)


def noise(size: int, seed: int) -> bytes:
    """No two seeds give the same."""
    at = seed * 4_097 % MiB
    return b"".join(_NOISE[at : at + min(MiB, size - done)] for done in range(0, size, MiB))


LAYERS: dict[str, Callable[[int], dict[str, bytes]]] = {
    "one file": lambda share: {"large": noise(share * 64 * MiB, 1)},
    "a file without a cut": lambda share: {"same": b"never a cut " * (share * 4 * MiB)},
    "many files": lambda share: {
        f"{number % 97}/f{number}": noise(2_000, number) for number in range(share * 12_000)
    },
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_three_times_as_large_takes_no_more(kind: str, tmp_path: Path) -> None:
    """Of many files their names alone: 200 bytes each."""
    costs = []
    with Forks("cli.commands.convert", "operations.converting") as forks:
        for share in (1, 3):
            home = tmp_path / f"{share}"
            home.mkdir()
            corpus.layout(home / "plain", {"t": [corpus.tar(LAYERS[kind](share))]})
            words = ["convert", f"oci:{home}/plain:t", f"oci:{home}/made:t", "--level", "1", "-q"]
            costs.append(forks.run(Run(words, str(home))))
    small, large = costs
    assert (small.code, large.code) == (0, 0)
    assert large.peak_bytes < MOST
    assert large.peak_bytes < small.peak_bytes + 24 * MiB


def test_what_an_update_costs_is_told_in_bounded_memory(tmp_path: Path) -> None:
    old = {f"{number % 97}/f{number}": noise(2_000, number) for number in range(20_000)}
    new = old | {f"{number % 97}/f{number}": noise(2_000, number + 50_000) for number in range(500)}
    corpus.layout(tmp_path / "plain", {"v1": [corpus.tar(old)], "v2": [corpus.tar(new)]})
    source = f"oci:{tmp_path}/plain"
    words = ["convert", f"{source}:v2", f"oci:{tmp_path}/made:t", "--against", f"{source}:v1"]
    with Forks("cli.commands.convert", "operations.converting") as forks:
        cost = forks.run(Run(words, str(tmp_path)))
    assert cost.code == 0
    assert cost.peak_bytes < MOST
    assert "an update from" in (tmp_path / "err").read_text()
