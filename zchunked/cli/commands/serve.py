"""`zpull serve`: run a registry on loopback for the engines of this machine."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from msgspec import to_builtins

from zchunked import ServeSettings, config_for
from zchunked.cli.commands.budget import budget_of
from zchunked.cli.settings import Settings, client_of
from zchunked.cli.terminal.render import warn
from zchunked.events import Event, Noted
from zchunked.results import Access


def serve(settings: Settings) -> int:
    """Serve until stopped; with `--config-for` only print what to write where."""
    own, output = settings.own, settings.output
    wanted = ServeSettings(
        own["listen"],
        _path(own["tls_cert"]),
        _path(own["tls_key"]),
        own["insecure_listen"],
        tuple(own["allow"]),
        tuple(own["upstream"]),
        _path(own["token"]),
        own["stale"],
        own["prefetch"],
        max_bytes=budget_of(settings),
    )
    if own["config_for"]:
        print(config_for(own["config_for"], wanted), end="")
        return 0

    def access(one: Access) -> None:
        if not output.is_quiet:
            _say(json.dumps(to_builtins(one), ensure_ascii=False, separators=(",", ":")))

    def log(text: str) -> None:
        if output.is_verbose:
            _say(f"zpull: {text}")

    with client_of(settings, _report) as client:
        client.serve(wanted, access=access, log=log)
    return 0


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _report(event: Event) -> None:
    warn(event)
    if isinstance(event, Noted):
        print(f"zpull: {event.text}", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    """The log's reader may have gone away: the server stays."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
