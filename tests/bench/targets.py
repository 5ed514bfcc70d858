"""What we promised, held against what was measured. Pure: results in, verdicts out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.link import LINKS, Link
from tests.bench.measure import Cost
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
    own = cost.need if cost and cost.receipt else results.need(image, client)
    return ratio(cost.wire if cost else None, own)


def way_of(cost: Cost) -> str:
    """The ways of the layers that were lacking, by zpull's receipt; empty for other clients."""
    ways = {
        "whole" if layer["mode"] == "whole" else "exact" if layer["identical"] else "lean"
        for layer in cost.receipt.get("layers", ())
        if layer["mode"] != "cached"
    }
    return " and ".join(sorted(ways))


def over_limit(results: Results, image: str, link: Link, client: str) -> float | None:
    """Seconds of an update against those that the bytes take on that link which its way needs."""
    cost = results.cost("pulls", image, link.name, "update", client)
    need = cost.need if cost and cost.receipt else results.need(image, client)
    return ratio(cost.wall if cost else None, link.limit(need) if need else None)


def over_curl(results: Results, image: str, link: Link) -> float | None:
    """Seconds of an update against 1.1 times curl's for the whole blobs, and half a second."""
    cost = results.cost("pulls", image, link.name, "update", "zpull")
    whole = results.cost("pulls", image, link.name, "cold", "curl")
    return ratio(cost.wall if cost else None, whole.wall * 1.1 + 0.5 if whole else None)


def over_other_ways(results: Results, image: str, link: Link) -> float | None:
    """Seconds of the way that was taken against the quicker of the exact and the lean one."""
    names = ("zpull", "zpull --exact", "zpull --lean")
    taken, *others = (results.cost("pulls", image, link.name, "update", name) for name in names)
    walls = [cost.wall for cost in others if cost]
    return ratio(taken.wall if taken else None, min(walls, default=None))


def against(
    results: Results, image: str, link: Link, case: str, number: str, other: str, one: str = "zpull"
) -> float | None:
    """One client's number, `wall` or `cpu`, against another's."""
    mine = results.cost("pulls", image, link.name, case, one)
    theirs = results.cost("pulls", image, link.name, case, other)
    return ratio(
        getattr(mine, number) if mine else None, getattr(theirs, number) if theirs else None
    )


def verdicts(results: Results) -> Iterator[Verdict]:
    yield from _of_updates(results)
    for image in results.sizes:
        yield from _of_cold_pulls(results, image)
        yield from _of_links(results, image)
    yield from _of_many_files(results)
    yield from _of_conversions(results)
    none = [row.cost for row in results.find("habits") if row.where.startswith("no ranges")]
    whole = [ratio(cost.wire, results.sizes.get("node")) or 0.0 for cost in none if not cost.failed]
    yield Verdict("hosts without ranges: bytes / image", max(whole, default=None), 1.01)
    failed = [row for row in results.find("habits") if row.cost.failed]
    yield Verdict(
        "hosts with habits: pulls that failed", float(len(failed)) if whole else None, 0, ""
    )
    nothing = results.cost("pulls", "python", LOOPBACK.name, "nothing", "zpull")
    yield Verdict(
        "nothing to do (python): requests", float(nothing.requests) if nothing else None, 1, ""
    )
    yield Verdict("nothing to do (python): wall", nothing.wall if nothing else None, 0.4, "s")
    off = [abs(bytes_off) for _, _, bytes_off in plans(results)]
    yield Verdict("plan: bytes that a pull then fetches, off by", max(off, default=None), 3, "%")


def _of_many_files(results: Results) -> Iterator[Verdict]:
    """Of the largest image that was grown: what does the number of files alone do?"""
    count = max((row.where for row in results.find("growth")), key=int, default="300000")
    image = next((row.image for row in results.find("growth", where=count)), "")

    def cost(case: str, client: str) -> Cost | None:
        return results.cost("growth", image, count, case, client)

    def walls(case: str, other: str) -> float | None:
        mine, theirs = cost(case, "zpull"), cost(case, other)
        return ratio(mine.wall if mine else None, theirs.wall if theirs else None)

    what = f"{int(count):,} files"
    peaks = [found for name in ("zpull", "zpull --exact") if (found := cost("update", name))]
    peak = max([found.peak / 2**20 for found in peaks], default=None)
    yield Verdict(f"{what}, update: wall / podman's", walls("update", "podman"), 0.2)
    yield Verdict(f"{what}, update, exact too: peak memory", peak, 250, "MiB")
    yield Verdict(f"{what}, cold: wall / skopeo's", walls("cold", "skopeo"), 3)


def _of_conversions(results: Results) -> Iterator[Verdict]:
    for image in dict.fromkeys(row.image for row in results.find("converts")):
        mine, theirs = (
            results.cost("converts", image, "level 3", "convert", client)
            for client in ("zpull", "skopeo")
        )
        if mine and theirs:
            what = f"conversion of {image}"
            yield Verdict(f"{what}: wall / skopeo's", ratio(mine.wall, theirs.wall), 0.2)
            yield Verdict(f"{what}: cpu / skopeo's", ratio(mine.cpu, theirs.cpu), 0.2)
            yield Verdict(f"{what}: bytes / skopeo's", ratio(mine.wire, theirs.wire), 1.02)
            yield Verdict(f"{what}: peak memory", mine.peak / 2**20, 300, "MiB")


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
        (
            f"{row.suite}: {row.image}, {row.where}, {row.case}, {row.client}: by "
            f"{row.cost.misstated:,} bytes"
        )
        for row in results.rows
        if row.cost.misstated
    ]


def disturbed(results: Results) -> list[str]:
    """Pulls on loopback during which strangers were busy, so that their seconds mean little."""
    return [
        (
            f"{row.suite}: {row.image}, {row.where}, {row.case}, {row.client}: "
            f"{row.cost.others / row.cost.wall:.1f} cores"
        )
        for row in results.rows
        if (row.where == LOOPBACK.name or row.suite == "growth") and row.cost.is_disturbed
    ]


def _habit(results: Results, where: str) -> float | None:
    cost = results.cost("habits", "node", where, "update", "zpull")
    return ratio(
        cost.wire if cost else None,
        cost.need if cost and cost.receipt else results.need("node", "zpull"),
    )


def _of_updates(results: Results) -> Iterator[Verdict]:
    for image, bound in (("python", 1.05), ("node", 1.12)):
        measured = bytes_per_need(results, image, "zpull --exact")
        yield Verdict(f"update of {image}, exact: bytes / need, several ranges", measured, bound)
    for image, bound in (("python", 1.045), ("node", 1.066)):
        measured = bytes_per_need(results, image, "zpull --lean")
        yield Verdict(f"update of {image}, lean: bytes / need, several ranges", measured, bound)
    yield Verdict(
        "update of node: bytes / need, single ranges, 40 ms", _habit(results, SINGLE), 1.10
    )
    for image, walls, cpus in (("node", 0.2, 0.2), ("python", 0.35, 0.3)):
        for number, bound in (("wall", walls), ("cpu", cpus)):
            measured = against(results, image, LOOPBACK, "update", number, "podman")
            yield Verdict(f"update of {image}, loopback: {number} / podman's", measured, bound)
    peaks = [
        results.cost("pulls", "node", LOOPBACK.name, "update", name)
        for name in ("zpull", "zpull --exact")
    ]
    peak = max([cost.peak / 2**20 for cost in peaks if cost], default=None)
    yield Verdict("update of node, exact too: peak memory", peak, 150, "MiB")


def _of_cold_pulls(results: Results, image: str) -> Iterator[Verdict]:
    for client in ("zpull", "zpull --to oci:"):
        measured = against(results, image, LOOPBACK, "cold", "wall", "skopeo", client)
        yield Verdict(f"cold {image}, loopback: {client}: wall / skopeo's", measured, 2)
    cold = results.cost("pulls", image, LOOPBACK.name, "cold", "zpull")
    yield Verdict(
        f"cold {image}: bytes / image",
        ratio(cold.wire if cold else None, results.sizes[image]),
        1.0001,
    )
    for link in (GIGABIT, SLOW):
        measured = against(results, image, link, "cold", "wall", "curl")
        yield Verdict(f"cold {image}, {link.name}: wall / curl's", measured, 1.05)


def _of_links(results: Results, image: str) -> Iterator[Verdict]:
    measured = over_curl(results, image, GIGABIT)
    yield Verdict(
        f"update of {image}, {GIGABIT.name}: wall / (1.1 × curl's of all + 0.5 s)", measured, 1
    )
    for link in (SLOW, SLOWER):
        measured = over_limit(results, image, link, "zpull")
        yield Verdict(
            f"update of {image}, {link.name}: wall / (need / rate + 4 round trips)", measured, 1.10
        )
    measured = over_other_ways(results, image, SLOW)
    yield Verdict(f"update of {image}, {SLOW.name}: wall / that of the quicker way", measured, 1.05)
