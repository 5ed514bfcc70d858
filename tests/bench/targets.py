"""What we promised, held against what was measured. Pure: results in, verdicts out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.link import LINKS, Link
from tests.bench.results import Results

LOOPBACK, GIGABIT, SLOW, SLOWER = LINKS
SINGLE = "400 to several"
"""The habit that stands for all hosts that give one range at a time."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`measured` is None when the run did not tell."""

    what: str
    measured: float | None
    bound: float
    unit: str = "×"

    @property
    def holds(self) -> str:
        if self.measured is None:
            return "not measured"
        return "yes" if self.measured <= self.bound else "**no**"


def ratio(one: float | None, other: float | None) -> float | None:
    """None when either is unknown, or the other nothing."""
    return one / other if one is not None and other else None


def bytes_per_need(results: Results, image: str, client: str) -> float | None:
    cost = results.update(image, client)
    return ratio(cost.wire if cost else None, results.need(image))


def over_limit(results: Results, image: str, link: Link, client: str) -> float | None:
    """Seconds of an update against those that the needed bytes take on that link."""
    cost, need = results.cost("pulls", image, link.name, "update", client), results.need(image)
    return ratio(cost.wall if cost else None, link.limit(need) if need else None)


def against(
    results: Results, image: str, link: Link, case: str, number: str, other: str, one: str = "zpull"
) -> float | None:
    """One client's number, `wall` or `cpu`, against another's."""
    mine = results.cost("pulls", image, link.name, case, one)
    theirs = results.cost("pulls", image, link.name, case, other)
    return ratio(getattr(mine, number) if mine else None, getattr(theirs, number) if theirs else None)


def verdicts(results: Results) -> Iterator[Verdict]:
    yield Verdict("update of node: bytes / need, several ranges", bytes_per_need(results, "node", "zpull"), 1.045)
    yield Verdict("update of node: bytes / need, single ranges, 40 ms", _habit(results, SINGLE), 1.10)
    yield Verdict("update of python: bytes / need, several ranges", bytes_per_need(results, "python", "zpull"), 1.02)
    for number, bound in (("wall", 0.35), ("cpu", 0.4)):
        measured = against(results, "node", LOOPBACK, "update", number, "podman")
        yield Verdict(f"update of node, loopback: {number} / podman's", measured, bound)
    update = results.cost("pulls", "node", LOOPBACK.name, "update", "zpull")
    yield Verdict("update of node: peak memory", update.peak / 2**20 if update else None, 150, "MiB")
    for image in results.sizes:
        for client in ("zpull", "zpull --to oci:"):
            measured = against(results, image, LOOPBACK, "cold", "wall", "skopeo", client)
            yield Verdict(f"cold {image}, loopback: {client}: wall / skopeo's", measured, 1.5)
    for image in results.sizes:
        for link in (GIGABIT, SLOW):
            measured = against(results, image, link, "cold", "wall", "curl")
            yield Verdict(f"cold {image}, {link.name}: wall / curl's", measured, 1.05)
    for image in results.sizes:
        for link in (SLOW, SLOWER):
            measured = over_limit(results, image, link, "zpull")
            yield Verdict(f"update of {image}, {link.name}: wall / (need / rate + 4 round trips)", measured, 1.10)
    none = [row.cost for row in results.find("habits") if row.where.startswith("no ranges")]
    whole = [ratio(cost.wire, results.sizes.get("node")) or 0.0 for cost in none if not cost.failed]
    yield Verdict("hosts without ranges: bytes / image", max(whole, default=None), 1.01)
    failed = [row for row in results.find("habits") if row.cost.failed]
    yield Verdict("hosts with habits: pulls that failed", float(len(failed)) if whole else None, 0, "")
    nothing = results.cost("pulls", "python", LOOPBACK.name, "nothing", "zpull")
    yield Verdict("nothing to do (python): requests", float(nothing.requests) if nothing else None, 1, "")
    yield Verdict("nothing to do (python): wall", nothing.wall if nothing else None, 0.4, "s")
    off = [abs(bytes_off) for _, _, bytes_off in plans(results)]
    yield Verdict("plan: bytes that a pull then fetches, off by", max(off, default=None), 3, "%")


def plans(results: Results) -> Iterator[tuple[str, str, float]]:
    """Image, link, and by how many per cent the pull's bytes were more than the plan had said."""
    for row in results.find("plans", case="pull"):
        plan = results.cost("plans", row.image, row.where, "plan", row.client)
        if plan and not row.cost.failed:
            said = plan.receipt["estimate"]["bytes"]
            yield row.image, row.where, 100 * (row.cost.wire / said - 1)


def misstated(results: Results) -> list[str]:
    """Pulls whose receipt and server disagree on the bytes."""
    return [
        f"{row.suite}: {row.image}, {row.where}, {row.case}, {row.client}: by {row.cost.misstated:,} bytes"
        for row in results.rows
        if row.cost.misstated
    ]


def disturbed(results: Results) -> list[str]:
    """Pulls on loopback during which strangers were busy, so that their seconds mean little."""
    return [
        f"{row.suite}: {row.image}, {row.where}, {row.case}, {row.client}: {row.cost.others / row.cost.wall:.1f} cores"
        for row in results.rows
        if (row.where == LOOPBACK.name or row.suite == "growth") and row.cost.is_disturbed
    ]


def _habit(results: Results, where: str) -> float | None:
    cost = results.cost("habits", "node", where, "update", "zpull")
    return ratio(cost.wire if cost else None, results.need("node"))
