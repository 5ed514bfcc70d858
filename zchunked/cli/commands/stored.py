"""`zpull export`, `images` and `verify`: what needs no network."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime

from zchunked.cli.progress import human
from zchunked.cli.render import destinations_of, print_json, print_outcome, print_warning
from zchunked.cli.settings import Settings
from zchunked.errors import IntegrityError, UsageError
from zchunked.export import export
from zchunked.maintenance.verify import verify
from zchunked.oci.reference import parse_image
from zchunked.receipt import Receipt, image_bytes
from zchunked.store import Store
from zchunked.store.images import load


def export_image(settings: Settings) -> int:
    reference = parse_image(settings.image)
    destinations = destinations_of(settings.to, force=settings.force)
    if not destinations:
        raise UsageError("export needs --to DEST")
    receipt = Receipt(str(reference))
    with Store(settings.store) as store:
        image = load(store, str(reference), reference.digest, settings.platform)
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
        rows = store.images()
    if settings.output.format == "json":
        print_json([
            {
                "reference": row.name,
                "platform": row.platform,
                "manifest_digest": row.manifest,
                "root_digest": row.root,
                "pulled": _when(row.pulled),
            }
            for row in rows
        ])  # fmt: skip
    elif settings.output.is_quiet:
        for row in rows:
            print(row.manifest)
    else:
        width = max((len(row.name) for row in rows), default=0)
        for row in rows:
            print(f"{row.name:<{width}}  {row.platform:<14}  {row.manifest}  {_when(row.pulled)}")
    return 0


def verify_store(settings: Settings) -> int:
    """Exit code 6 when something was damaged: it is gone now, and the next pull fetches it again."""
    with Store(settings.store) as store:
        findings = verify(store)
    if settings.output.format == "json":
        print_json(asdict(findings))
    elif not settings.output.is_quiet:
        print(f"{findings.blobs} blobs, {findings.chunks} chunks, {human(findings.bytes)} checked")
    if not findings.damaged:
        return 0
    first = findings.damaged[0]
    raise IntegrityError(
        f"{len(findings.damaged)} damaged spans were dropped from the store, the first at [{first.start},{first.end}) "
        f"of {first.blob}; pull the image again to heal it"
    )


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
