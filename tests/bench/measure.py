"""Run a command once and measure it: seconds, CPU, memory, and bytes and requests by the server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from tests.helpers.servers import peers

_LAUNCH = Path(__file__).with_name("launch.py")
_TIMEOUT = 1800


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run, or the medians of several."""

    wall: float
    cpu: float
    peak: int
    """Bytes; of the largest process."""
    wire: int = 0
    """Body bytes that the server sent, part headers included."""
    requests: int = 0
    receipt: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Only zpull gives one."""
    misstated: int = 0
    """Bytes in the receipt less those that the server counted; of several runs the worst."""
    failed: str | None = None
    """Why there are no other numbers."""
    others: float = 0.0
    """CPU seconds that everybody else had of the machine meanwhile: servers, links, strangers."""

    @property
    def need(self) -> int:
        """Missing chunks, TOCs, tar-splits and documents: what nobody can do without."""
        spent = self.receipt["bytes"]
        return int(spent["needed"] + spent["metadata"])

    @property
    def is_disturbed(self) -> bool:
        """Whether others had more than half a core; on loopback the server has less."""
        return self.others > max(0.5, self.wall / 2)

    def counted(self, wire: int, requests: int) -> Cost:
        """With what the server wrote down, held against the receipt."""
        said = self.receipt["bytes"]["fetched"] - wire if "bytes" in self.receipt else 0
        return replace(self, wire=wire, requests=requests, misstated=said)


def run(command: Command, folder: Path) -> Cost:
    """Once; what it printed stays in `folder`. Its server side is not counted here."""
    folder.mkdir(parents=True, exist_ok=True)
    out, err, result = folder / "out", folder / "err", folder / "cost.json"
    argv = [sys.executable, "-I", "-S", str(_LAUNCH), str(result), str(_TIMEOUT), *command.argv]
    with out.open("w") as stdout, err.open("w") as stderr:
        env = {**peers.environment(), **command.env}
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env
        ) as launcher:
            try:
                launcher.wait()
            finally:
                launcher.terminate()  # it takes its child with it
    row = json.loads(result.read_text())
    said = out.read_text(errors="replace").strip()
    failed = None
    if row["code"]:
        failed = (
            f"ended with {row['code']}: "
            f"{(err.read_text(errors='replace').strip() or said).splitlines()[-1:]}"
        )
    receipt = json.loads(said) if said.startswith("{") and not failed else {}
    return Cost(
        row["wall"], row["cpu"], row["peak"], receipt=receipt, failed=failed, others=row["others"]
    )


def middle(costs: Iterable[Cost]) -> Cost:
    """Each number's own median; a failure if one failed."""
    found = list(costs)
    for cost in found:
        if cost.failed:
            return cost

    def of(number: Callable[[Cost], float]) -> float:
        return median(map(number, found))

    return Cost(
        of(lambda cost: cost.wall),
        of(lambda cost: cost.cpu),
        int(of(lambda cost: cost.peak)),
        int(of(lambda cost: cost.wire)),
        int(of(lambda cost: cost.requests)),
        found[-1].receipt,
        max((cost.misstated for cost in found), key=abs),
        others=of(lambda cost: cost.others),
    )
