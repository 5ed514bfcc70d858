"""`zpull rm` and `zpull gc`: forget images, and free disk space."""

from __future__ import annotations

import sys

from zchunked import GcOptions
from zchunked.cli.commands.budget import budget_of
from zchunked.cli.settings import Settings, client_of
from zchunked.cli.terminal.progress import human
from zchunked.cli.terminal.render import print_json, warn
from zchunked.errors import UsageError
from zchunked.findings import Freed


def remove(settings: Settings) -> int:
    """Forget all of the images or, where the store lacks one, none."""
    with client_of(settings, warn) as client:
        rows = client.remove(*settings.own["image"], platform=settings.platform)
    if settings.output.format == "json":
        print_json(
            [
                {"reference": row.name, "platform": row.platform, "manifest_digest": row.manifest}
                for row in rows
            ]
        )
    elif not settings.output.is_quiet:
        for row in rows:
            print(f"{row.name}  {row.platform}  {row.manifest}")
    return 0


def take_in(settings: Settings) -> int:
    """`zpull ingest`: standard input is the blob, from its first byte on."""
    if not settings.own["digest"]:
        raise UsageError("ingest needs --digest sha256:…")
    with client_of(settings, warn) as client:
        size = client.ingest(settings.own["digest"], sys.stdin.buffer, size=settings.own["size"])
    if settings.output.format == "json":
        print_json({"digest": settings.own["digest"], "size": size})
    elif not settings.output.is_quiet:
        print(settings.own["digest"])
    return 0


def collect_garbage(settings: Settings) -> int:
    own = settings.own
    keep = [*own["keep"], *own["also_kept"]]
    if own["also_kept"] and not own["keep"]:
        raise UsageError("gc takes images only behind --keep; zpull rm removes images")
    options = GcOptions(
        max_bytes=own["max_size"] if own["max_size"] is not None else budget_of(settings),
        max_age=own["max_age"],
        keep_last=own["keep_last"],
        expiry=own["expire"],
        is_dry=own["dry_run"],
    )
    freed = client_of(settings, warn).gc(options, keep=keep or None)
    if settings.output.format == "json":
        print_json({
            "images": [
                {"reference": ref.name, "platform": ref.platform, "manifest_digest": ref.manifest}
                for ref in freed.images
            ],
            "pulls": [{"reference": pull.name, "platform": pull.platform} for pull in freed.pulls],
            "blobs": freed.blobs,
            "compacted_files": freed.compacted,
            "bytes": {
                "before": freed.before, "after": freed.after, "freed": freed.bytes,
                "above_budget": freed.over,
            },
            "is_dry_run": bool(own["dry_run"]),
        })  # fmt: skip
    elif not settings.output.is_quiet:
        _report(freed, is_dry=own["dry_run"])
    return 0


def _report(freed: Freed, *, is_dry: bool) -> None:
    for ref in freed.images:
        print(
            f"{'would remove' if is_dry else 'removed'} {ref.name}  {ref.platform}  {ref.manifest}"
        )
    for pull in freed.pulls:
        print(f"{'would drop' if is_dry else 'dropped'} the interrupted pull of {pull.name}")
    done = "would free" if is_dry else "freed"
    print(f"{done} {human(freed.bytes)}: {freed.blobs} blobs; the store holds {human(freed.after)}")
    if freed.over:
        print(f"that is {human(freed.over)} above the budget, and in use by running processes")
