"""What verbs share: the store they work on and how they print."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO

from zchunked.cli.progress import Progress, human
from zchunked.cli.settings import Output
from zchunked.errors import UsageError, ZPullError
from zchunked.export import Destination, check_target, parse_destination
from zchunked.export.targets import opened
from zchunked.oci.digest import Digest, short
from zchunked.oci.quoting import printable
from zchunked.oci.reference import ImageReference
from zchunked.pull.planner import LayerTask
from zchunked.ranges import total
from zchunked.receipt import Receipt

_RAW = re.compile(r"[^\n\x20-\x7e]")


def progress_of(output: Output) -> Progress:
    return Progress(output.progress, sys.stderr, explain=output.explain, tells_requests=output.is_verbose)


def destinations_of(texts: Iterable[str], *, force: bool) -> list[Destination]:
    """Checked before anything is opened or asked for. UsageError, LocalError."""
    destinations = [parse_destination(text) for text in texts]
    for destination in destinations:
        check_target(destination, force=force)
    if sum(one.is_stdout for one in destinations) > 1:
        raise UsageError("only one --to can write to standard output")
    return destinations


def print_outcome(
    output: Output,
    reference: ImageReference,
    receipt: Receipt,
    failure: ZPullError | None,
    destinations: Iterable[Destination] = (),
) -> None:
    """The result on standard output; on stderr where an archive went to standard output."""
    out = sys.stderr if any(one.is_stdout for one in destinations) else sys.stdout
    if output.format == "json":
        document = asdict(receipt)
        if receipt.estimate is None:
            del document["estimate"]
        if failure is not None:
            document["error"] = str(failure)
        print_json(document, out)
    elif failure is None:
        print_line(f"{'' if output.is_quiet else f'{reference.name}@'}{receipt.manifest_digest}", out)


def print_plan(receipt: Receipt, works: list[LayerTask], rate: float | None) -> None:
    """What a pull would cost, layer by layer. `rate`: bytes per second to reckon with, None if as measured."""
    orders = {work.layer.digest: work.order for work in works if work.order}
    for layer in receipt.layers:
        order = orders.get(Digest(layer.digest))
        runs = order.runs if order else []
        size = sum(total(run) for run in runs)
        gap = order.worth([span for run in runs for span in run]).gap if order else 0
        reason = f"  ({layer.reason})" if layer.reason else ""
        print_line(
            f"{short(layer.digest)}  {layer.kind:<12}  {layer.mode:<7}  {human(layer.cached_bytes):>8} here"
            f"  {human(size):>8} to fetch, {human(gap)} of it gaps  {len(runs):>5} requests{reason}"
        )
    cost = receipt.estimate
    if cost is not None:
        time = ""
        if cost.seconds is not None:
            time = f", about {cost.seconds:.1f} s at {f'{human(rate)}/s' if rate else 'the rate measured just now'}"
        print_line(f"a pull fetches {cost.bytes} bytes ({human(cost.bytes)}) in {cost.requests} requests{time}")


def print_warning(text: str) -> None:
    print(f"zpull: warning: {text}", file=sys.stderr)


def print_line(text: str, out: IO[str] | None = None) -> None:
    """A line of the result. To a terminal nothing raw; elsewhere as it is, so that it can be given back to zpull."""
    out = out or sys.stdout
    print(printable(text) if out.isatty() else text, file=out)


def print_json(document: object, out: IO[str] | None = None) -> None:
    """Letters that a terminal could take for commands, and bytes of paths that are no text, are escaped."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    print(_RAW.sub(_escaped, text), file=out or sys.stdout)


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def write_digestfile(path: Path | None, receipt: Receipt) -> None:
    if path is not None:
        with opened(path) as file:
            file.write(f"{receipt.manifest_digest}\n".encode())
