"""Dispatch a verb to its command; a command's modules are loaded only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from zchunked.cli.manuals.help import first_screen
from zchunked.cli.words.parser import parse

COMMANDS = {
    "pull": "pull.pull",
    "plan": "pull.pull",
    "publish": "publish.publish",
    "push": "push.push",
    "convert": "convert.convert",
    "serve": "serve.serve",
    "fetch": "objects.fetch",
    "locate": "objects.locate",
    "export": "stored.export_image",
    "images": "stored.images",
    "verify": "stored.verify_store",
    "rm": "keeping.remove",
    "gc": "keeping.collect_garbage",
    "ingest": "keeping.take_in",
    "status": "status.status",
}
"""Each verb's file in `commands/`, and the function there: settings in, exit code out."""


_BRINGING = ("pull", "publish", "push", "convert")  # images into the store


def dispatch(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Parse and run. A word that is a verb is a verb; anything else is an image to pull."""
    if not argv:
        print(first_screen(is_short=True), file=sys.stderr)
        return 2
    parsed = parse(argv, environment)
    if parsed.verb == "print-manual":
        from zchunked.cli.manuals.manual import manual  # noqa: PLC0415

        print(manual(), end="")
        return 0
    if parsed.verb == "print-completion":
        from zchunked.cli.manuals.completion import completion  # noqa: PLC0415

        print(completion(parsed.values["shell"]))
        return 0
    from zchunked.cli.settings import settings  # noqa: PLC0415 - the network libraries take time to load

    command = settings(parsed, environment)
    module, _, name = COMMANDS[parsed.verb].partition(".")
    run: Callable[[object], int] = getattr(import_module(f"zchunked.cli.commands.{module}"), name)
    if parsed.verb not in _BRINGING:
        return run(command)
    from zchunked.cli.commands.budget import within_budget  # noqa: PLC0415

    with within_budget(command):
        return run(command)
