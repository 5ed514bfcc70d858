"""What each fault costs, measured: prints the tables of docs/resilience.md.

    .venv/bin/python -m tests.measure_faults

Every row is one cold pull of a 10 MB image of three layers (two zstd:chunked, one gzip) by the real
command from the registry of the tests, which counts every byte. Costs are differences from the
first row, a pull without faults.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.build.front import Image, Layer
from tests.helpers.harness.rough import kill_after, large, run, started
from tests.helpers.servers.accounts import Kind, Request
from tests.helpers.servers.answers import parse_ranges
from tests.helpers.servers.faults import (
    Outage,
    Rule,
    cut,
    empty,
    extra,
    fail,
    fail_as_ghcr,
    flip,
    missing,
    on,
    refuse,
    reset,
    shift_content_range,
    stall,
)
from tests.helpers.servers.registry import Registry

_RATE = 4_000_000  # bytes per second, all connections together
_SIZE = 10_000_000


@dataclass(frozen=True)
class Cost:
    """Of one pull, or of all runs of one: bytes as the server counts them."""

    retries: int
    requests: int
    sent: int
    twice: int
    wasted: int
    seconds: float


def rows(made: Image) -> dict[str, tuple[Sequence[Rule], Sequence[Outage]]]:
    layer, gzip = made.layers[0], made.layers[2]
    chunk = max(layer.chunks, key=lambda one: one.end - one.start)
    blobs: tuple[Kind, ...] = ("toc", "blob")
    return {
        "nothing goes wrong": ((), ()),
        "every connection is reset after 64 KiB": ([on("any", reset(after=64 << 10))], ()),
        "every connection is closed after 64 KiB": ([on("any", cut(after=64 << 10))], ()),
        "every connection is reset after 4 KiB of the first MB": (
            [on("blob", reset(after=4096), times=244)],
            (),
        ),
        "every first request of a kind is refused": (
            [
                on(kind, refuse(how="rst"), nth=1)
                for kind in ("token", "manifest", "config", "toc", "blob")
            ],
            (),
        ),
        "10 % of all answers are 503": ([on("any", fail(503), probability=0.1)], ()),
        "one 429, Retry-After: 1": ([on("blob", fail(429, retry_after=1), nth=3)], ()),
        "five 429 as GHCR says it, in the body": (
            [on("blob", fail_as_ghcr(), nth=range(3, 8))],
            (),
        ),
        "one connection stalls in the middle": ([on("blob", stall(600, after=50_000), nth=3)], ()),
        "three answers with a wrong Content-Range": (
            [on(blobs, shift_content_range(), nth=(2, 4, 6))],
            (),
        ),
        "three answers without a body": ([on(blobs, empty(), nth=(2, 4, 6))], ()),
        "three answers 1000 bytes short": ([on(blobs, missing(1000), nth=(2, 4, 6))], ()),
        "three answers 1000 bytes too long": ([on(blobs, extra(1000), nth=(2, 4, 6))], ()),
        f"one chunk of {chunk.end - chunk.start:,} bytes comes damaged": (
            [
                on(
                    "blob",
                    flip(chunk.start + 9),
                    nth=1,
                    when=lambda request: _asks(request, layer, chunk.start + 9),
                )
            ],
            (),
        ),
        "the gzip layer of 2.5 MB comes damaged": (
            [on("blob", flip(10), nth=1, when=lambda request: _asks(request, gzip, 10))],
            (),
        ),
        "no network for 1 s": ((), [Outage(1, after_bytes=_SIZE // 2)]),
        "no network for 8 s": ((), [Outage(8, after_bytes=_SIZE // 2)]),
        "no byte for 8 s, connections stay open": (
            (),
            [Outage(8, after_bytes=_SIZE // 2, silent=True)],
        ),
    }


def _asks(request: Request, layer: Layer, at: int) -> bool:
    """Whether the byte of the layer at this offset is among what is asked for."""
    spans = (
        parse_ranges(request.range, len(layer.blob)) if request.range else [(0, len(layer.blob))]
    )
    return request.digest == layer.digest and any(start <= at < end for start, end in spans or ())


def measure(made: Image, rules: Sequence[Rule], outages: Sequence[Outage]) -> Cost:
    with (
        tempfile.TemporaryDirectory() as folder,
        Registry({"t": made}, auth="bearer", rate=_RATE, faults=rules, outages=outages) as registry,
    ):
        receipt = run(Path(folder), registry, "t").receipt
        counted = registry.accounts
        assert counted.body_bytes >= receipt["bytes"]["fetched"]
        return Cost(
                receipt["retries"], receipt["requests"], counted.body_bytes, counted.sent_twice(),
                receipt["bytes"]["wasted"], receipt["seconds"],
            )  # fmt: skip


def deaths(made: Image) -> dict[str, Callable[[Path, Registry], None]]:
    def killed(
        home: Path, registry: Registry, number: int = signal.SIGKILL, times: int = 1
    ) -> None:
        dice = random.Random(3)
        for _ in range(times):
            with started(home, registry.reference("t")) as process:
                time.sleep(0.3)
                kill_after(process, registry, dice.randint(_SIZE // 40, _SIZE // 15), number)
                process.communicate()

    def unplugged(home: Path, registry: Registry) -> None:
        with started(home, registry.reference("t")) as process:
            kill_after(process, registry, _SIZE // 2)
            process.communicate()
        for journal in (home / "store" / "blobs").glob("*.map"):
            head, _, body = journal.read_bytes().partition(b"\n")
            journal.write_bytes(
                json.dumps(json.loads(head) | {"boot": "another"}).encode() + b"\n" + body
            )

    return {
        "one kill -9": killed,
        "twelve times kill -9": lambda home, registry: killed(home, registry, times=12),
        "Ctrl-C": lambda home, registry: killed(home, registry, signal.SIGINT),
        "power loss in mid-pull": unplugged,
    }


def measure_death(made: Image, death: Callable[[Path, Registry], None]) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with Registry({"t": made}, auth="bearer", rate=_RATE) as registry:
            death(home, registry)
            receipt = run(home, registry, "t").receipt
            counted = registry.accounts
            return Cost(
                receipt["retries"], counted.count(), counted.body_bytes, counted.sent_twice(),
                receipt["bytes"]["wasted"], registry.wire.seconds,
            )  # fmt: skip


def _row(name: str, cost: Cost, base: Cost) -> str:
    more = cost.sent - base.sent
    return (
        f"| {name} | {cost.retries} | {cost.requests - base.requests:+} "
        f"| {more:+,} ({100 * more / base.sent:+.2f} %) | {cost.twice:,} | {cost.wasted:,} "
        f"| {cost.seconds - base.seconds:+.1f} |"
    )


def main() -> int:
    made = large(_SIZE)
    head = (
        "| what goes wrong | retries | requests | bytes sent | sent twice | wasted, says the "
        "receipt | seconds |"
    )
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
        f"{sum(map(len, made.blobs.values())):,} bytes of image\n"
    )
    print(f"{head}\n|---|---|---|---|---|---|---|")
    base: Cost | None = None
    for name, (rules, outages) in rows(made).items():
        cost = measure(made, rules, outages)
        base = base or cost
        print(_row(name, cost, base), flush=True)
    assert base is not None
    for name, death in deaths(made).items():
        print(_row(f"{name}, then the same command", measure_death(made, death), base), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
