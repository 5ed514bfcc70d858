"""`zpull status`: list running and interrupted pulls."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator

from msgspec import to_builtins

from zchunked.cli.commands.stored import age
from zchunked.cli.settings import Settings, client_of
from zchunked.cli.terminal.progress import human
from zchunked.cli.terminal.render import print_json, print_line, warn
from zchunked.errors import InterruptedPullError
from zchunked.findings import PullStatus
from zchunked.oci.digest import short

_WATCH_SECONDS = 1.0
_UP_AND_CLEAR = "\x1b[{}F\x1b[J"


def status(settings: Settings) -> int:
    """List pulls; with --watch as one table, or, with --format json, one line a second."""
    is_watched, pause = settings.own["watch"], threading.Event()
    rows = 0
    try:
        with client_of(settings, warn) as client:
            while True:
                found = client.status()
                is_last = not is_watched or not any(pull.is_running for pull in found)
                if rows:
                    print(_UP_AND_CLEAR.format(rows), end="")
                rows = _show(settings, found, is_watched=is_watched, is_last=is_last)
                if is_last:
                    return 0
                pause.wait(_WATCH_SECONDS)
    except KeyboardInterrupt:
        raise InterruptedPullError("interrupted; the pulls that were watched go on") from None


def _show(settings: Settings, found: list[PullStatus], *, is_watched: bool, is_last: bool) -> int:
    """Returns how many rows of a terminal it took that the next table may have; 0: none."""
    if settings.output.format == "json":
        document = [to_builtins(pull) | {"here": pull.here, "size": pull.size} for pull in found]
        if is_watched:
            print(json.dumps(document), flush=True)
        else:
            print_json(document)
        return 0
    lines = [*_lines(settings, found)]
    is_redrawn = is_watched and sys.stdout.isatty()
    if is_redrawn and not is_last:  # a row that is wrapped or scrolled away cannot be taken back
        width, height = shutil.get_terminal_size()
        lines = [line[: width - 1] for line in lines[: height - 1]]
    for line in lines:
        print_line(line)
    sys.stdout.flush()
    return len(lines) if is_redrawn else 0


def _lines(settings: Settings, found: list[PullStatus]) -> Iterator[str]:
    for pull in found:
        if settings.output.is_quiet:
            yield pull.reference
            continue
        what = f"under way (process {pull.process})" if pull.is_running else "interrupted"
        when = f"last byte {age(time.time() - pull.last)}, " if not pull.is_running else ""
        yield (
            f"{pull.reference}  {pull.platform}  {what}  {human(pull.here)} of {human(pull.size)}  "
            f"{human(pull.rate)}/s  {when}begun {age(time.time() - pull.began)}"
        )
        for layer in pull.layers:
            state = "done" if layer.is_done else f"{human(layer.here)} of {human(layer.size)}"
            yield f"  {short(layer.digest)}  {state}"
    if not found and not settings.output.is_quiet:
        yield "no pull is under way or was interrupted"
