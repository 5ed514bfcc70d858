"""The suites: clients side by side over links, hosts with their own habits, images that grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import clients
from tests.bench.clients import Client, Podman, Skopeo, Tools, Zpull, forget, keep
from tests.bench.link import LINKS, Link, linked
from tests.bench.measure import Command, Cost, middle, run
from tests.bench.results import REGISTRY, Row
from tests.helpers.servers import peers
from tests.helpers.servers.registry import Registry

BEFORE, AFTER = "v1", "v2"
SLOW = LINKS[2]  # on which picky hosts are met
HABITS: Mapping[str, Mapping[str, Any]] = {
    "several ranges": {},
    "several, in another order": {"multi_range": "reordered"},
    "several, neighbours joined": {"multi_range": "coalesced"},
    "only the first of several": {"multi_range": "single-only-first"},
    "200 to several": {"multi_range": "200"},
    "400 to several": {"multi_range": "400"},
    "416 to several": {"multi_range": "416"},
    "501 to several": {"multi_range": "501"},
    "no ranges: 200 to one": {"multi_range": "200", "single_range": "200"},
    "no ranges: 501 to one": {"multi_range": "501", "single_range": "501"},
}
_SETTLE = 0.25  # seconds until a server has written down what its client left in the middle


@dataclass
class Bench:
    """Where to work, whom to ask, and how often."""

    work: Path
    front: peers.Server
    """What every client pulls from."""
    registry: peers.Server
    """The same images, each byte from docker-registry."""
    repeats: int
    engine: Path
    links: Sequence[Link]
    habits: Sequence[str]
    say: Callable[[str], None]

    def once(self, command: Command, link: Link, server: peers.Server | None = None) -> Cost:
        """Run it, and count what the server, `front` if no other, sent meanwhile."""
        with (server or self.front).watched() as hits:
            cost = run(command, self.work / "said")
            time.sleep(_SETTLE + link.rtt)
        return cost.counted(sum(hit.sent for hit in hits), len(hits))

    def home(self, client: Client) -> Path:
        return self.work / client.name.replace(" ", "-").replace(":", "")

    def prepare(self, client: Client, image: str) -> Path | None:
        """What the client remembers once it has the first version; None when it cannot pull."""
        home = self.home(client)
        saved = home.with_suffix(".saved")
        forget(home)
        forget(saved)
        cost = run(client.pull(home, self.front.host, image, BEFORE), self.work / "said")
        if cost.failed:
            self.say(f"  {client.name} cannot pull {image}: {cost.failed}")
            return None
        keep(home, saved)
        return saved

    def done(self, client: Client) -> None:
        forget(self.home(client))
        forget(self.home(client).with_suffix(".saved"))


def pulls(bench: Bench, image: str) -> Iterator[Row]:
    """All clients, cold and from the first version to the second, over all links, in turns."""
    whole = clients.manifest(bench.front.host, image, AFTER)
    ways = [Zpull(bench.engine, options=("--exact",)), Zpull(bench.engine, options=("--lean",))]
    players: list[Client] = [
        Zpull(bench.engine),
        Zpull(bench.engine, exports=True),
        Skopeo(),
        Podman(),
    ]
    saved = {player.name: place for player in players if (place := bench.prepare(player, image))}
    if "zpull" in saved:  # all ways begin with the same store
        saved |= {player.name: saved["zpull"] for player in ways}
        players[1:1] = ways
    players = [player for player in players if player.name in saved]
    need: int | None = None
    for link in bench.links:
        with linked(link, bench.front.host) as host:
            tools = [whole.proved()] if Tools.are_here() else []
            for player in _cold_players(link, [*players, whole.whole(), *tools]):
                costs = [
                    _cold(bench, player, link, host, image) for _ in range(_repeats(bench, link))
                ]
                yield _told(
                    bench, Row("pulls", image, link.name, "cold", player.name, middle(costs))
                )
            found: dict[tuple[str, str], list[Cost]] = {}
            for _ in range(_repeats(bench, link)):
                for player in _update_players(link, players):
                    home = bench.home(player)
                    forget(home, saved[player.name])
                    command = player.pull(home, host, image, AFTER)
                    found.setdefault(("update", player.name), []).append(bench.once(command, link))
                    found.setdefault(("nothing", player.name), []).append(bench.once(command, link))
                    forget(home)
            for (case, name), costs in found.items():
                yield _told(bench, Row("pulls", image, link.name, case, name, middle(costs)))
            if need is None and not (first := found["update", "zpull --exact"][0]).failed:
                need = first.need
            if need:
                ideal = whole.parts(need)
                costs = [
                    _cold(bench, ideal, link, host, image) for _ in range(_repeats(bench, link))
                ]
                yield _told(
                    bench, Row("pulls", image, link.name, "update", ideal.name, middle(costs))
                )
            yield from _planned(bench, link, host, image, saved["zpull"])
    yield from _from_registry(bench, players, image, saved)
    for player in players:
        bench.done(player)


def _from_registry(
    bench: Bench, players: Sequence[Client], image: str, saved: Mapping[str, Path]
) -> Iterator[Row]:
    """Updates for their bytes alone: docker-registry has the longest part headers, and uses CPU."""
    for player in players:
        if player.name in {"zpull", "zpull --exact", "zpull --lean", "podman"}:
            home = bench.home(player)
            forget(home, saved[player.name])
            cost = bench.once(
                player.pull(home, bench.registry.host, image, AFTER), LINKS[0], bench.registry
            )
            forget(home)
            yield _told(bench, Row("pulls", image, REGISTRY, "update", player.name, cost))


def _repeats(bench: Bench, link: Link) -> int:
    return 1 if link.rtt >= SLOW.rtt else bench.repeats


def _cold_players(link: Link, players: Sequence[Client]) -> list[Client]:
    """Whole images over a slow link take minutes and teach little."""
    if link.rtt > SLOW.rtt:
        return []
    players = [player for player in players if player.name not in {"zpull --exact", "zpull --lean"}]
    return [
        player
        for player in players
        if link.rtt < SLOW.rtt or player.name in {"zpull", "skopeo", "curl"}
    ]


def _update_players(link: Link, players: Sequence[Client]) -> list[Client]:
    return [
        player for player in players if link.rtt <= SLOW.rtt or player.name in {"zpull", "podman"}
    ]


def _cold(bench: Bench, player: Client, link: Link, host: str, image: str) -> Cost:
    home = bench.home(player)
    forget(home)
    cost = bench.once(player.pull(home, host, image, AFTER), link)
    forget(home)
    return cost


def _planned(bench: Bench, link: Link, host: str, image: str, saved: Path) -> Iterator[Row]:
    """`zpull plan`, and right after it the pull that it spoke of."""
    player = Zpull(bench.engine)
    home = bench.home(player)
    forget(home, saved)
    plan = bench.once(player.plan(home, host, image, AFTER), link)
    if not plan.failed and "estimate" in plan.receipt:
        yield _told(bench, Row("plans", image, link.name, "plan", player.name, plan))
        pull = bench.once(player.pull(home, host, image, AFTER), link)
        yield _told(bench, Row("plans", image, link.name, "pull", player.name, pull))
    forget(home)


def habits(bench: Bench, image: str) -> Iterator[Row]:
    """Only zpull: updating from hosts that answer ranges in their own ways, over the slow link."""
    layout = bench.work / "habits"
    source = f"docker://{bench.front.host}/{image}:{AFTER}"
    peers.skopeo_new()(
        "copy", "--src-tls-verify=false", source, f"oci:{layout}:{AFTER}", timeout=600
    )
    player = Zpull(bench.engine)
    saved = bench.prepare(player, image)
    for name in bench.habits if saved else ():
        with (
            Registry(layout, repository=image, **HABITS[name]) as registry,
            linked(SLOW, registry.host) as host,
        ):
            home = bench.home(player)
            forget(home, saved)
            cost = run(player.pull(home, host, image, AFTER), bench.work / "said")
            time.sleep(_SETTLE + SLOW.rtt)
            cost = cost.counted(registry.accounts.body_bytes, registry.accounts.count())
        yield _told(bench, Row("habits", image, name, "update", player.name, cost))
    bench.done(player)
    forget(layout)


def growth(bench: Bench, grown: Mapping[int, str]) -> Iterator[Row]:
    """A made-up image at several sizes on loopback: cold, updated, and once more for nothing.

    At the largest size zpull's exact way and the peers are measured too.
    """
    for count, image in grown.items():
        players: list[Client] = [Zpull(bench.engine)]
        if count == max(grown):
            players += [Zpull(bench.engine, options=("--exact",)), Skopeo(), Podman()]
        for player in players:
            yield from _grown(bench, player, count, image)


def _grown(bench: Bench, player: Client, count: int, image: str) -> Iterator[Row]:
    saved, loopback = bench.prepare(player, image), LINKS[0]
    found: dict[str, list[Cost]] = {"cold": [], "update": [], "nothing": []}
    for _ in range(bench.repeats if saved else 0):
        home = bench.home(player)
        found["cold"].append(_cold(bench, player, loopback, bench.front.host, image))
        forget(home, saved)
        command = player.pull(home, bench.front.host, image, AFTER)
        found["update"].append(bench.once(command, loopback))
        found["nothing"].append(bench.once(command, loopback))
    for case, costs in found.items():
        if costs:
            row = Row("growth", image, str(count), case, player.name, middle(costs))
            yield _told(bench, row)
    bench.done(player)


def serving(folder: Path, storage: Path, stack: ExitStack) -> tuple[peers.Server, peers.Server]:
    """A registry behind nginx, which counts; once nginx reads the blobs itself, as a CDN does.

    docker-registry reads 4 MiB of a blob for each part of an answer: 72 GB and 9 s of a core for
    one update of 72 MB.
    """
    registry = stack.enter_context(peers.docker_registry(folder / "registry", storage=storage))
    rules = _BLOBS % (storage / "docker" / "registry" / "v2" / "blobs")
    front = stack.enter_context(peers.nginx(folder / "front", upstream=registry.url, rules=rules))
    return front, stack.enter_context(peers.nginx(folder / "plain", upstream=registry.url))


_BLOBS = r"""
      location ~ "^/v2/.+/blobs/sha256:(..)([0-9a-f]{62})$" {
        alias %s/sha256/$1/$1$2/data; types {} default_type application/octet-stream;
      }
      """


def _told(bench: Bench, row: Row) -> Row:
    cost = row.cost
    numbers = (
        f"{cost.wall:8.2f} s {cost.cpu:8.2f} s CPU {cost.peak / 1048576:6.0f} MiB "
        f"{cost.wire:13,} B {cost.requests:6}"
    )
    bench.say(
        f"  {row.image:12} {row.where:26} {row.case:8} {row.client:20} {cost.failed or numbers}"
    )
    return row
