"""Print plans, receipts and errors; open the store for a verb."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from msgspec import to_builtins

from zchunked import Plan
from zchunked.cli.settings import Output
from zchunked.cli.terminal.progress import Progress, human
from zchunked.errors import ZPullError
from zchunked.events import Event, Warned
from zchunked.oci.digest import short
from zchunked.oci.quoting import printable, safe_line
from zchunked.oci.reference import parse_image
from zchunked.receipt import Receipt

_RAW = re.compile(r"[^\n\x20-\x7e]")


def progress_of(output: Output) -> Progress:
    return Progress(
        output.progress, sys.stderr, explain=output.explain, shows_requests=output.is_verbose
    )


def print_outcome(
    output: Output, receipt: Receipt, to: Sequence[str] = (), failure: ZPullError | None = None
) -> None:
    """The result on standard output; on stderr where an archive went to standard output."""
    out = sys.stderr if to and _takes_stdout(to) else sys.stdout
    if output.format == "json":
        print_json(document_of(receipt, failure), out)
    elif failure is None:
        name = parse_image(receipt.reference).name
        print_line(f"{'' if output.is_quiet else f'{name}@'}{receipt.manifest_digest}", out)


def document_of(receipt: Receipt, failure: ZPullError | None) -> dict[str, object]:
    """The receipt as JSON has it."""
    document: dict[str, object] = to_builtins(receipt)
    if receipt.estimate is None:
        del document["estimate"], document["ways"]
    if failure is not None:
        document["error"] = str(failure)
    return document


def print_plan(plan: Plan, rate: float | None) -> None:
    """Print a plan, layer by layer. `rate`: bytes per second to assume; None: as measured."""
    for layer in plan.layers:
        reason = f"  ({layer.reason})" if layer.reason else ""
        print_line(
            f"{short(layer.digest)}  {layer.kind:<12}  {layer.mode:<7}  "
            f"{human(layer.cached_bytes):>8} here  {human(layer.fetch_bytes):>8} to fetch, "
            f"{human(layer.gap_bytes)} of it gaps  {layer.requests:>5} requests{reason}"
        )
    cost, time = plan.estimate, ""
    if cost.seconds is not None and cost.bytes:
        time = (
            f", about {cost.seconds:.1f} s at "
            f"{f'{human(rate)}/s' if rate else 'the rate measured just now'}"
        )
    for way in plan.receipt.ways or ():
        mark = "  taken" if way.taken else ""
        seconds = f", {way.seconds:.1f} s" if cost.seconds is not None else ""
        print_line(f"{way.way:<5}  {human(way.bytes):>8} in {way.requests} requests{seconds}{mark}")
    print_line(
        f"a pull fetches {cost.bytes} bytes ({human(cost.bytes)}) in {cost.requests} requests{time}"
    )


def print_warning(text: str) -> None:
    print(f"zpull: warning: {text}", file=sys.stderr)


def warn(event: Event) -> None:
    """Of all events, warnings alone: for a command without progress."""
    if isinstance(event, Warned):
        print_warning(event.text)


def print_error(text: str) -> None:
    """Print the error of one image among several; the command's own is printed at its end."""
    print(f"zpull: error: {safe_line(' '.join(text.split()))}", file=sys.stderr, flush=True)


def print_line(text: str, out: IO[str] | None = None) -> None:
    """Print a line of the result: escaped for a terminal, otherwise raw, to be reused."""
    out = out or sys.stdout
    print(printable(text) if out.isatty() else text, file=out)


def print_json(document: object, out: IO[str] | None = None) -> None:
    """Print JSON; control characters, and bytes of paths that are no text, are escaped."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    print(_RAW.sub(_escaped, text), file=out or sys.stdout)


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def _takes_stdout(to: Sequence[str]) -> bool:
    from zchunked import writes_to_stdout  # noqa: PLC0415 - most pulls end in the store

    return writes_to_stdout(to)


def write_digestfile(path: Path | None, digest: str | None) -> None:
    if path is not None:
        from zchunked import write_file  # noqa: PLC0415 - loads what exports are written with

        write_file(path, [f"{digest}\n".encode()])
