"""`zpull export`, `images` and `verify`: commands on stored images, without the network."""

from __future__ import annotations

import time
from contextlib import closing

from msgspec import to_builtins

from zchunked.cli.settings import Settings, client_of
from zchunked.cli.terminal.progress import human
from zchunked.cli.terminal.render import (
    print_json,
    print_line,
    print_outcome,
    progress_of,
    warn,
    write_digestfile,
)
from zchunked.errors import IntegrityError
from zchunked.oci.quoting import printable


def export_image(settings: Settings) -> int:
    progress = progress_of(settings.output)
    with closing(client_of(settings, progress)) as client:
        done = client.export(
            settings.image,
            settings.to,
            platform=settings.platform,
            force=settings.force,
            load=settings.load,
        )
    write_digestfile(settings.output.digestfile, done.manifest_digest)
    print_outcome(settings.output, done.receipt, settings.to)
    return 0


def images(settings: Settings) -> int:
    with closing(client_of(settings, warn)) as client:
        entries = client.images()
    if settings.output.format == "json":
        print_json([
            {
                "reference": image.reference,
                "platform": image.platform,
                "manifest_digest": image.manifest_digest,
                "root_digest": image.root_digest,
                "size": image.size,
                "shared_size": image.shared_size,
                "proved": image.proved,
                "pulled": image.pulled.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            for image in entries
        ])  # fmt: skip
    elif settings.output.is_quiet:
        for image in entries:
            print(image.manifest_digest)
    elif entries:
        now = time.time()
        table = [("IMAGE", "PLATFORM", "DIGEST", "SIZE", "SHARED", "PROVED BY", "PULLED")]
        table += [
            (
                image.reference,
                image.platform,
                image.manifest_digest,
                "?" if image.size is None else human(image.size),
                "?" if image.shared_size is None else human(image.shared_size),
                (image.proved or "nothing").replace("diff_id", "diff ID"),
                age(now - image.pulled.timestamp()),
            )
            for image in entries
        ]
        widths = [max(len(printable(row[column])) for row in table) for column in range(6)]
        for *cells, last in table:
            print_line(
                "  ".join(
                    [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)] + [last]
                )
            )
    return 0


def age(seconds: float) -> str:
    """How long ago, for people. A clock that was set back makes nothing of the future."""
    for size, unit in ((86400.0 * 7, "week"), (86400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= 2 * size or (seconds >= size and unit != "week"):
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def verify_store(settings: Settings) -> int:
    """Exit code 6 when something was damaged: it is dropped, unless the store is read-only."""
    with closing(client_of(settings, warn)) as client:
        findings = client.verify(
            settings.image or None, platform=settings.platform, quick=settings.own["quick"]
        )
    if settings.output.format == "json":
        print_json(to_builtins(findings))
    elif not settings.output.is_quiet:
        checked = "sizes alone" if settings.own["quick"] else human(findings.bytes)
        print(f"{findings.blobs} blobs, {findings.chunks} chunks, {checked} checked")
    if findings.lies:
        raise IntegrityError(findings.lies[0].says)
    if not findings.damaged:
        return 0
    first, count = findings.damaged[0], len(findings.damaged)
    where = f"the first at [{first.start},{first.end}) of {first.blob}"
    if findings.is_read_only:
        raise IntegrityError(
            f"{count} damaged spans in the store, {where}; they stay, since the store is read-only"
        )
    raise IntegrityError(
        f"{count} damaged spans were dropped from the store, {where}; pull the image again to "
        "repair it"
    )
