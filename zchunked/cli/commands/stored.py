"""`zpull export`, `images` and `verify`: what needs no network."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime

from zchunked.cli.progress import human
from zchunked.cli.render import destinations_of, print_json, print_line, print_outcome, print_warning
from zchunked.cli.settings import Settings
from zchunked.errors import IntegrityError, UsageError
from zchunked.export import export
from zchunked.maintenance.usage import usage
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import short
from zchunked.oci.quoting import printable
from zchunked.oci.reference import parse_image
from zchunked.receipt import Receipt, image_bytes
from zchunked.store import Store
from zchunked.store.images import find, find_name, load


def export_image(settings: Settings) -> int:
    destinations = destinations_of(settings.to, force=settings.force)
    if not destinations:
        raise UsageError("export needs --to DEST")
    with Store(settings.store) as store:
        name, digest = find_name(store, settings.image, settings.platform)
        reference, receipt = parse_image(name), Receipt(name)
        image = load(store, name, digest, settings.platform)
        documents = image.documents
        receipt.platform = str(image.config.platform)
        receipt.names(documents.root, documents.manifest_digest)
        receipt.image_id = documents.manifest.config.digest
        receipt.bytes.image = receipt.bytes.cached = image_bytes(documents.manifest)
        for destination in destinations:
            done = export(store, image, destination, force=settings.force, tell=_tell)
            if warning := receipt.exported(done):
                print_warning(warning)
    print_outcome(settings.output, reference, receipt, None, destinations)
    return 0


def _tell(text: str) -> None:
    print(f"zpull: {text}", file=sys.stderr)


def images(settings: Settings) -> int:
    with Store(settings.store) as store:
        rows = usage(store)
    if settings.output.format == "json":
        print_json([
            {
                "reference": row.image.name,
                "platform": row.image.platform,
                "manifest_digest": row.image.manifest,
                "root_digest": row.image.root,
                "size": row.size,
                "shared_size": row.shared,
                "proved": row.proved,
                "pulled": _when(row.image.pulled),
            }
            for row in rows
        ])  # fmt: skip
    elif settings.output.is_quiet:
        for row in rows:
            print(row.image.manifest)
    else:
        now = time.time()
        table = [("IMAGE", "PLATFORM", "DIGEST", "SIZE", "SHARED", "PROVED BY", "PULLED")]
        table += [
            (
                row.image.name,
                row.image.platform,
                short(row.image.manifest),
                "?" if row.size is None else human(row.size),
                "?" if row.shared is None else human(row.shared),
                (row.proved or "nothing").replace("diff_id", "diff ID"),
                age(now - row.image.pulled),
            )
            for row in rows
        ]
        widths = [max(len(printable(row[column])) for row in table) for column in range(6)]
        for *cells, last in table:
            print_line("  ".join([f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)] + [last]))
    return 0


def age(seconds: float) -> str:
    """How long ago, for people. A clock that was set back makes nothing of the future."""
    for size, unit in ((86400.0 * 7, "week"), (86400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= 2 * size or (seconds >= size and unit != "week"):
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def verify_store(settings: Settings) -> int:
    """Exit code 6 when something was damaged: it is gone now, and the next pull fetches it again."""
    with Store(settings.store) as store:
        only = [one.manifest for one in find(store, settings.image, settings.platform)] if settings.image else None
        findings = verify(store, only=only, is_quick=settings.own["quick"])
    if settings.output.format == "json":
        print_json(asdict(findings))
    elif not settings.output.is_quiet:
        checked = "sizes alone" if settings.own["quick"] else human(findings.bytes)
        print(f"{findings.blobs} blobs, {findings.chunks} chunks, {checked} checked")
    if not findings.damaged:
        return 0
    first = findings.damaged[0]
    raise IntegrityError(
        f"{len(findings.damaged)} damaged spans were dropped from the store, the first at [{first.start},{first.end}) "
        f"of {first.blob}; pull the image again to heal it"
    )


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
