"""`zpull status`: list running and interrupted pulls."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict

from zchunked.cli.commands.stored import age
from zchunked.cli.progress import human
from zchunked.cli.render import print_json, print_line, warn
from zchunked.cli.settings import Settings, client_of
from zchunked.findings import PullStatus
from zchunked.oci.digest import short

_WATCH_SECONDS = 1.0


def status(settings: Settings) -> int:
    """List pulls; with --watch as one table, or, with --format json, one line a second."""
    is_watched, pause = settings.own["watch"], threading.Event()
    with client_of(settings, warn) as client:
        while True:
            found = client.status()
            _show(settings, found, is_watched=is_watched)
            if not is_watched or not any(pull.is_running for pull in found):
                return 0
            pause.wait(_WATCH_SECONDS)


def _show(settings: Settings, found: list[PullStatus], *, is_watched: bool) -> None:
    if settings.output.format == "json":
        document = [asdict(pull) | {"here": pull.here, "size": pull.size} for pull in found]
        if is_watched:
            print(json.dumps(document), flush=True)
        else:
            print_json(document)
        return
    for pull in found:
        if settings.output.is_quiet:
            print_line(pull.reference)
            continue
        what = f"under way (process {pull.process})" if pull.is_running else "interrupted"
        when = f"last byte {age(time.time() - pull.last)}, " if not pull.is_running else ""
        print_line(
            f"{pull.reference}  {pull.platform}  {what}  {human(pull.here)} of {human(pull.size)}  "
            f"{human(pull.rate)}/s  {when}begun {age(time.time() - pull.began)}"
        )
        for layer in pull.layers:
            state = "done" if layer.is_done else f"{human(layer.here)} of {human(layer.size)}"
            print_line(f"  {short(layer.digest)}  {state}")
    if not found and not settings.output.is_quiet:
        print("no pull is under way or was interrupted", flush=True)
