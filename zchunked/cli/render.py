"""What verbs share: the store they work on and how they print."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

import msgspec
import platformdirs

from zchunked.cli.progress import human
from zchunked.errors import UsageError, ZPullError
from zchunked.export import Destination, check_target, parse_destination
from zchunked.export.targets import opened
from zchunked.oci.digest import Digest, short
from zchunked.oci.documents import Platform, parse_platform, this_platform
from zchunked.oci.reference import ImageReference
from zchunked.pull.planner import LayerTask
from zchunked.ranges import total
from zchunked.receipt import Receipt
from zchunked.store import Store


def store_of(arguments: argparse.Namespace) -> Store:
    """The caller closes it."""
    return Store(Path(arguments.store or platformdirs.user_cache_dir("zpull")))


def destinations_of(arguments: argparse.Namespace) -> list[Destination]:
    """Checked before anything is opened or asked for. UsageError, LocalError."""
    destinations = [parse_destination(text) for text in arguments.to]
    for destination in destinations:
        check_target(destination, force=arguments.force)
    if sum(one.is_stdout for one in destinations) > 1:
        raise UsageError("only one --to can write to standard output")
    return destinations


def platform_of(text: str | None) -> Platform:
    platform = parse_platform(text) if text else this_platform()
    if platform is None:
        raise UsageError(f"--platform {text!r:.80}: want os/architecture[/variant], such as linux/arm64")
    return platform


def print_outcome(
    arguments: argparse.Namespace, reference: ImageReference, receipt: Receipt, failure: ZPullError | None
) -> None:
    """The result on standard output; on stderr where an archive went to standard output."""
    out = sys.stderr if any(parse_destination(text).is_stdout for text in arguments.to) else sys.stdout
    if arguments.format == "json":
        document = asdict(receipt)
        if receipt.estimate is None:
            del document["estimate"]
        if failure is not None:
            document["error"] = str(failure)
        print_json(document, out)
    elif failure is None:
        print(receipt.manifest_digest if arguments.quiet else f"{reference.name}@{receipt.manifest_digest}", file=out)


def print_plan(receipt: Receipt, works: list[LayerTask]) -> None:
    """What a pull would cost, layer by layer."""
    orders = {work.layer.digest: work.order for work in works if work.order}
    for layer in receipt.layers:
        order = orders.get(Digest(layer.digest))
        runs = order.runs if order else []
        size = sum(total(run) for run in runs)
        gap = order.worth([span for run in runs for span in run]).gap if order else 0
        reason = f"  ({layer.reason})" if layer.reason else ""
        print(
            f"{short(layer.digest)}  {layer.kind:<12}  {layer.mode:<7}  {human(layer.cached_bytes):>8} here"
            f"  {human(size):>8} to fetch, {human(gap)} of it gaps  {len(runs):>5} requests{reason}"
        )
    cost = receipt.estimate
    if cost is not None:
        time = f", about {cost.seconds:.1f} s" if cost.seconds else ""
        print(f"a pull fetches {cost.bytes} bytes ({human(cost.bytes)}) in {cost.requests} requests{time}")


def print_warning(text: str) -> None:
    print(f"zpull: warning: {text}", file=sys.stderr)


def print_json(document: object, out: IO[str] | None = None) -> None:
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode(), file=out or sys.stdout)


def write_digestfile(path: str | None, receipt: Receipt) -> None:
    if path:
        with opened(Path(path)) as file:
            file.write(f"{receipt.manifest_digest}\n".encode())
