"""Results as docs/benchmarks.md and its picture."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.bench import chart, targets
from tests.bench.link import LINKS
from tests.bench.measure import Cost
from tests.bench.results import Results
from tests.bench.targets import LOOPBACK, bytes_per_need, over_limit, ratio, way_of

_CLIENTS = (
    "zpull",
    "zpull --exact",
    "zpull --lean",
    "zpull --to oci:",
    "skopeo",
    "podman",
    "curl",
    "curl, zstd, openssl",
    "curl, ideal ranges",
)
_CASES = {
    "cold": "Cold pull: nothing is here",
    "update": "Update: the first version is here",
    "nothing": "Nothing to do: the image is here",
}
_NONE = "–"
_FEW = 12  # lines of what went wrong
_UNDONE = f"""
No real network: the links are a relay in user space with a rate, a delay and a short fair queue.
It knows neither slow start nor loss nor packet framing, and it takes CPU time of the cores that
client and server use.

No blobs from docker-registry, save where bytes are counted: it reads 4 MiB of its file for each
part of an answer, 8 s of a core for an update in 29,000 spans, and its client waits for that.

No TLS, no token server, no redirects, no CDN: plain http on loopback. zpull is told so
(`--plain-http`), as curl is by its URLs; skopeo and podman try https first, two round trips of a
link.

podman unpacks files into overlay storage, zpull keeps the registry's blobs (the lean way: chunks,
and proves diff IDs), skopeo copies blobs: they are not the same work.

Peak memory is of a command's largest process as the kernel reports it; page cache and server are
not in it.

Over {LINKS[3].name} no cold pulls and no skopeo; over {LINKS[2].name} no cold pull with podman or
an export.

skopeo copies whole blobs: its update is no partial pull. curl neither resolves references nor
checks digests.

"curl, zstd, openssl" downloads the layers side by side through `zstd -d` and two `openssl
sha256`, of blob and tar: the work that proving diff IDs is at least, by the tools of the system.
It keeps nothing.
"""


def write(results: Results, folder: Path) -> None:
    """Both files, into a folder that is there."""
    (folder / "benchmarks.svg").write_text(_picture(results), encoding="utf-8")
    (folder / "benchmarks.md").write_text("\n".join(_page(results)) + "\n", encoding="utf-8")


def _page(results: Results) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield from _prose(
        "Written by `make bench BENCH=full`; do not edit. Ratios are of one run on one machine, "
        "and what we hold on to; seconds are that machine's. All clients, the registry and the "
        "imitated links share its cores."
    )
    yield from _about(results)
    yield from _targets(results)
    yield from _updates(results)
    for case, title in _CASES.items():
        yield from _side_by_side(results, case, title)
    yield from _links(results)
    yield from _habits(results)
    yield from _growth(results)
    yield from _conversions(results)
    yield from _plans(results)
    yield from _not_done(results)


def _about(results: Results) -> Iterator[str]:
    if about := results.about:
        yield from _prose(
            f"Run on {about['date']}: {about['cores']} cores, {about['memory']} of memory, Linux "
            f"{about['kernel']}, Python {about['python']}; skopeo {about['skopeo']}, podman "
            f"{about['podman']} (root, overlay), curl {about['curl']}, docker-registry "
            f"{about['docker-registry']} behind nginx {about['nginx']}, which reads blobs from "
            "the registry's folder itself, as a CDN would. Clients keep their files "
            f"{'in memory' if about['work'] == 'memory' else 'on the disk'}. Over fast links the "
            f"median of {about['repeats']} runs, clients taking turns; over slow ones one run. "
            f"When it began the machine's load was {about['load']}: 0 is best. The sources of "
            f"zpull hash to {about['engine']}."
        )
    sizes = ", ".join(f"{image} {_mega(size)} MB" for image, size in results.sizes.items())
    yield from _prose(
        f"Images (compressed, the newer version): {sizes}. `node` is one layer of "
        "`node_modules`, `python` three layers of `site-packages`, of which the lowest did not "
        "change; both of public packages, listed in `tests/bench/packages.py`."
    )


def _targets(results: Results) -> Iterator[str]:
    yield "## Targets"
    yield ""
    rows = []
    for verdict in targets.verdicts(results):
        measured = (
            _NONE if verdict.measured is None else f"{verdict.measured:.3g} {verdict.unit}".strip()
        )
        rows.append(
            (verdict.what, f"≤ {verdict.bound:g} {verdict.unit}".strip(), measured, verdict.holds)
        )
    yield from _table(("what", "target", "measured", "holds"), rows)
    if off := targets.misstated(results):
        yield "Receipt and server disagree about the bytes of:"
        yield ""
        yield from (f"- {line}" for line in off)
    else:
        yield "In every pull of zpull the receipt's `fetched` was what the server had counted."
    yield ""
    if found := targets.disturbed(results):
        yield (
            f"During {len(found)} pulls on loopback others were busy, so that their seconds mean "
            "little:"
        )
        yield ""
        yield from (f"- {line}" for line in found[:_FEW])
        yield from [f"- and {len(found) - _FEW} more"] if len(found) > _FEW else []
        yield ""
    yield "![Updates over links, against the physical limit](benchmarks.svg)"
    yield ""


def _updates(results: Results) -> Iterator[str]:
    yield "## Bytes of an update"
    yield ""
    yield from _prose(
        "*Need*: what the way taken cannot do without, by zpull's receipt: of the exact way "
        "missing frames, changed headers and the blob's tail, of the lean one missing chunks, "
        "TOCs and tar-splits (of other clients: the same); of a whole layer all of it. *Wire*: "
        "body bytes as nginx counted them, part headers included: those of zpull and podman "
        "from docker-registry itself, whose part headers are the longest."
    )
    rows = []
    for image in results.sizes:
        for client in _CLIENTS:
            cost = results.update(image, client)
            per_need = bytes_per_need(results, image, client)
            if cost and per_need:
                of_image = f"{100 * cost.wire / results.sizes[image]:.1f} %"
                need = cost.need if cost.receipt else results.need(image, client) or 0
                rows.append(
                    (
                        image,
                        client,
                        way_of(cost) or _NONE,
                        _mega(need),
                        _mega(cost.wire),
                        _times(per_need, 3),
                        of_image,
                        f"{cost.requests:,}",
                    )
                )
    yield from _table(
        (
            "image",
            "client",
            "way",
            "need, MB",
            "wire, MB",
            "wire / need",
            "of the image",
            "requests",
        ),
        rows,
    )
    for image in results.sizes:
        if (cost := results.update(image, "zpull")) is not None:
            spent = cost.receipt["bytes"]
            parts = ", ".join(
                f"{name} {spent[name]:,}"
                for name in ("needed", "metadata", "gap", "wasted", "fetched")
            )
            yield f"zpull's receipt for `{image}`: {parts}."
    yield ""


def _side_by_side(results: Results, case: str, title: str) -> Iterator[str]:
    yield f"## {title}, loopback"
    yield ""
    peer = "podman" if case == "update" else "skopeo"
    rows = []
    for image in results.sizes:
        base = results.cost("pulls", image, LOOPBACK.name, case, peer)
        for client in _CLIENTS:
            if cost := results.cost("pulls", image, LOOPBACK.name, case, client):
                walls = _times(ratio(cost.wall, base.wall if base else None))
                per_gigabyte = f"{cost.cpu / (cost.wire / 1e9):.1f}" if cost.wire > 1e6 else _NONE
                rows.append(
                    (
                        image,
                        client,
                        way_of(cost) or _NONE,
                        f"{cost.wall:.2f}",
                        walls,
                        *_numbers(cost),
                        per_gigabyte,
                    )
                )
    head = (
        "image",
        "client",
        "way",
        "wall, s",
        f"/ {peer}'s",
        "CPU, s",
        "peak, MiB",
        "wire, MB",
        "requests",
        "CPU s per GB",
    )
    yield from _table(head, rows)


def _links(results: Results) -> Iterator[str]:
    yield "## Over links"
    yield ""
    yield (
        "The limit is need (of the way taken) / rate + 4 round trips; of a cold pull, image / "
        "rate + 4 round trips."
    )
    yield ""
    rows = []
    for image in results.sizes:
        for link in LINKS[1:]:
            for case in ("update", "cold"):
                for client in _CLIENTS:
                    cost = results.cost("pulls", image, link.name, case, client)
                    need = cost.need if cost and cost.receipt else results.need(image, client)
                    size = need if case == "update" else results.sizes[image]
                    if cost and size:
                        limit = link.limit(size)
                        over, way = _times(cost.wall / limit), way_of(cost) or _NONE
                        rows.append(
                            (
                                image,
                                link.name,
                                case,
                                client,
                                way,
                                f"{cost.wall:.2f}",
                                f"{limit:.2f}",
                                over,
                                *_numbers(cost),
                            )
                        )
    head = (
        "image",
        "link",
        "case",
        "client",
        "way",
        "wall, s",
        "limit, s",
        "wall / limit",
        "CPU, s",
        "peak, MiB",
        "wire, MB",
        "requests",
    )
    yield from _table(head, rows)


def _habits(results: Results) -> Iterator[str]:
    found = list(results.find("habits"))
    if found:
        yield "## Hosts with habits"
        yield ""
        yield from _prose(
            f"zpull updating `{found[0].image}` over {LINKS[2].name} from a registry of our own "
            "that answers ranges in its own way; the client is told nothing."
        )
        need, rows = results.need(found[0].image), []
        for row in found:
            cost = row.cost
            per_need = ratio(cost.wire, need)
            of_image = ratio(cost.wire, results.sizes.get(row.image))
            numbers = (
                _times(per_need, 3),
                _times(of_image, 3),
                f"{cost.requests:,}",
                f"{cost.wall:.2f}",
            )
            rows.append(
                (
                    row.where,
                    *(
                        numbers
                        if not cost.failed
                        else (_NONE, _NONE, _NONE, f"**{cost.failed:.80}**")
                    ),
                )
            )
        yield from _table(("habit", "wire / need", "wire / image", "requests", "wall, s"), rows)


def _growth(results: Results) -> Iterator[str]:
    found = list(results.find("growth"))
    if found:
        yield "## Growth"
        yield ""
        yield (
            "On loopback, a made-up image of so many files (2 kB each on the average, 30 % of "
            "them change)."
        )
        yield ""
        rows = []
        for row in found:
            thousands, cost = int(row.where) / 1000, row.cost
            each = (f"{1000 * cost.wall / thousands:.1f}", f"{1000 * cost.cpu / thousands:.1f}")
            rows.append(
                (
                    row.case,
                    f"{int(row.where):,}",
                    row.client,
                    way_of(cost) or _NONE,
                    f"{cost.wall:.2f}",
                    f"{cost.cpu:.2f}",
                    _mebi(cost.peak),
                    *each,
                )
            )
        rows.sort(key=lambda row: (list(_CASES).index(row[0]), int(row[1].replace(",", ""))))
        yield from _table(
            (
                "case",
                "files",
                "client",
                "way",
                "wall, s",
                "CPU, s",
                "peak, MiB",
                "wall, ms per 1,000 files",
                "CPU, ms per 1,000 files",
            ),
            rows,
        )


def _conversions(results: Results) -> Iterator[str]:
    if found := list(results.find("converts")):
        yield "## Conversions"
        yield ""
        yield from _prose(
            "To zstd:chunked at level 3, of gzip layers, from layout to layout by turns, the store "
            "empty. `large` is one layer, the largest of `python`."
        )
        rows = [
            (
                row.image,
                row.client,
                f"{row.cost.wall:.2f}",
                f"{row.cost.cpu:.2f}",
                _mebi(row.cost.peak),
                _mega(row.cost.wire),
            )
            for row in found
        ]
        yield from _table(("image", "client", "wall, s", "CPU, s", "peak, MiB", "layers, MB"), rows)


def _plans(results: Results) -> Iterator[str]:
    if rows := [(image, link, f"{off:+.2f} %") for image, link, off in targets.plans(results)]:
        yield "## Said beforehand"
        yield ""
        yield (
            "What a pull fetched right after `zpull plan`, by the server's count, against what "
            "the plan had said."
        )
        yield ""
        yield from _table(("image", "link", "off by"), rows)


def _not_done(results: Results) -> Iterator[str]:
    yield "## What this run did not do"
    yield ""
    for text in _UNDONE.strip().split("\n\n"):
        yield from _item(text)
    if results.about.get("work") == "memory":
        yield from _item(
            "No disk below the clients: their files lay in memory, where `fdatasync` is free."
        )
    for row in results.rows:
        if cost := row.cost.failed:
            yield from _item(
                f"Failed: {row.suite}, {row.image}, {row.where}, {row.case}, {row.client}: "
                f"{cost:.160}"
            )
    if not any(targets.plans(results)):
        yield from _item("`zpull plan` was not there to be measured.")


def _picture(results: Results) -> str:
    series = ("zpull", "podman", "skopeo", "curl, ideal ranges")
    groups = [
        chart.Group(
            f"{image}, {link.name}", [over_limit(results, image, link, client) for client in series]
        )
        for image in results.sizes
        for link in LINKS[1:]
    ]
    title = "Updates over links: wall time as a multiple of need / rate + 4 round trips"
    return chart.svg(title, series, groups, ((1.0, "1.0"),))


def _numbers(cost: Cost) -> tuple[str, ...]:
    return f"{cost.cpu:.2f}", _mebi(cost.peak), _mega(cost.wire), f"{cost.requests:,}"


def _mega(size: float) -> str:
    return f"{size / 1e6:.1f}" if size >= 1e5 else f"{size / 1e6:.4f}"


def _mebi(size: float) -> str:
    return f"{size / 2**20:.0f}"


def _times(value: float | None, digits: int = 2) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _prose(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 120, break_on_hyphens=False)
    yield ""


def _item(text: str) -> Iterator[str]:
    yield from textwrap.wrap(f"- {text}", 120, subsequent_indent="  ", break_on_hyphens=False)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The first column is words; others that begin with figures stand right."""
    found = list(rows)
    right = [all(row[at][:1] in "0123456789+-–" for row in found) for at in range(len(head))]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("--:" if flag else "---" for flag in right) + "|"
    for row in found:
        yield "| " + " | ".join(row) + " |"
    yield ""
