"""Results as rows, kept as JSON between runs, so that one suite may be run again alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench.measure import Cost

REGISTRY = "docker-registry"
"""Where a row's bytes came from docker-registry itself; its seconds are not the client's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One client in one situation."""

    suite: str
    """pulls, habits, growth, plans, converts."""
    image: str
    where: str
    """The link, or what kind of host it was; a file count in growth."""
    case: str
    """cold, update, nothing."""
    client: str
    cost: Cost


@dataclass
class Results:
    """All rows, and the surroundings in which they were found."""

    about: dict[str, str] = field(default_factory=dict[str, str])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    """Image → bytes of its blobs."""
    rows: list[Row] = field(default_factory=list[Row])

    def find(self, suite: str, **wanted: str) -> Iterator[Row]:
        for row in self.rows:
            if row.suite == suite and all(
                getattr(row, name) == value for name, value in wanted.items()
            ):
                yield row

    def cost(self, suite: str, image: str, where: str, case: str, client: str) -> Cost | None:
        """None when it was not measured, or failed."""
        found = next(self.find(suite, image=image, where=where, case=case, client=client), None)
        return found.cost if found and not found.cost.failed else None

    def update(self, image: str, client: str) -> Cost | None:
        """The run whose bytes count: from docker-registry if measured, else on loopback."""
        rows = (
            self.cost("pulls", image, where, "update", client) for where in (REGISTRY, "loopback")
        )
        return next(filter(None, rows), None)

    def need(self, image: str, client: str = "zpull --exact") -> int | None:
        """What an update needs, from zpull's own receipts, by the way that this client takes.

        Of zpull: what came but gaps and waste. Others keep chunks and no blobs: what the lean way
        needs.
        """
        names = [client] if client.startswith("zpull") else ["zpull --lean"]
        found = (
            self.cost("pulls", image, "loopback", "update", name) for name in [*names, "zpull"]
        )
        return next((cost.need for cost in found if cost), None)

    def replace(self, rows: Sequence[Row]) -> None:
        """Older rows of the same suites and images give way to the new ones."""
        again = {(row.suite, row.image) for row in rows}
        self.rows = [row for row in self.rows if (row.suite, row.image) not in again] + list(rows)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))


def load(path: Path) -> Results:
    """Empty when there is none."""
    if not path.exists():
        return Results()
    found = json.loads(path.read_text())
    rows = [Row(**{**row, "cost": Cost(**row["cost"])}) for row in found["rows"]]
    return Results(found["about"], found["sizes"], rows)
