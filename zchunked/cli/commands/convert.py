"""`zpull convert SOURCE TARGET`: convert an image by `Client.convert`, and print the outcome."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from typing import TextIO

from msgspec import to_builtins

from zchunked import writes_to_stdout
from zchunked.cli.commands.pull import pull as plan_instead
from zchunked.cli.commands.push import summary_of
from zchunked.cli.settings import ALL, Settings, client_of
from zchunked.cli.terminal.progress import human
from zchunked.cli.terminal.render import print_json, print_line, progress_of, warn, write_digestfile
from zchunked.cli.tuning import seldom_collect
from zchunked.errors import ZPullError
from zchunked.results import ConvertResult


def convert(settings: Settings) -> int:
    """Nothing is written to TARGET before every layer is ready."""
    if settings.is_plan:
        options = settings.options
        client_of(settings, warn).check_target(settings.target, force=settings.force)
        exact = replace(options, gaps=replace(options.gaps, exact=True))
        return plan_instead(replace(settings, options=exact))
    seldom_collect()
    own, output, progress = settings.own, settings.output, progress_of(settings.output)
    with closing(progress), closing(client_of(settings, progress)) as client:
        try:
            done = client.convert(
                settings.image,
                settings.target,
                platform=ALL if own["platform"] == ALL else settings.platform,
                level=own["level"],
                rewrite_timestamp=own["rewrite_timestamp"],
                normalize=own["normalize"],
                against=own["against"],
                add=own["add"],
                force=settings.force,
            )
        except ZPullError as error:
            progress.close()
            if isinstance(error.converted, ConvertResult):
                if output.format == "json":
                    print_json(
                        _document(settings, error.converted) | {"error": str(error)}, _out(settings)
                    )
                _report(settings, error.converted)
            raise
    write_digestfile(output.digestfile, done.manifest_digest)
    if output.format == "json":
        print_json(_document(settings, done), _out(settings))
    else:
        line = (
            done.manifest_digest if output.is_quiet else f"{settings.target}@{done.manifest_digest}"
        )
        print_line(line, _out(settings))
    _report(settings, done)
    return 0


def _out(settings: Settings) -> TextIO:
    """Standard error where the image itself goes to standard output."""
    return sys.stderr if writes_to_stdout(settings.target) else sys.stdout


def _document(settings: Settings, done: ConvertResult) -> dict[str, object]:
    document: dict[str, object] = {
        "source": done.source,
        "target": settings.target,
        "manifest_digest": done.manifest_digest,
        "bytes": {"before": done.size_before, "after": done.size_after},
        "fetched_bytes": done.fetched_bytes,
        "images": to_builtins(done.images),
        "notes": done.notes,
    }
    if done.update is not None:
        document["against"] = {"source": settings.own["against"], **to_builtins(done.update)}
    if done.uploaded is not None:
        document["push"] = to_builtins(done.uploaded)
    return document


def _report(settings: Settings, done: ConvertResult) -> None:
    """Print what was converted, in lines for people."""
    if not settings.output.is_talkative:
        return
    if done.images:
        sizes = f"layers of {human(done.size_before)} are {human(done.size_after)} as zstd:chunked"
        print(f"zpull: {sizes}", file=sys.stderr)
    if (cost := done.update) is not None:
        now = f"{human(cost.lean)} as zstd:chunked ({human(cost.exact)} for the very blobs)"
        old = f"an update from {settings.own['against']}: {human(cost.before)} as it was"
        print(f"zpull: {old}, {now}", file=sys.stderr)
    if done.uploaded is not None:
        print(f"zpull: {summary_of(done.uploaded, settings.target)}", file=sys.stderr)
