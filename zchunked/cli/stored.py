"""`zpull export` and `zpull images`: what needs no network."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from zchunked.cli.output import print_json, print_receipt, store_of
from zchunked.errors import UsageError
from zchunked.exports import export, parse_destination
from zchunked.image import load
from zchunked.oci import parse_platform
from zchunked.receipt import Receipt, image_bytes
from zchunked.reference import parse_reference


def export_image(arguments: argparse.Namespace) -> int:
    reference = parse_reference(arguments.image)
    destinations = [parse_destination(text) for text in arguments.to]
    if not destinations:
        raise UsageError("export needs --to DEST")
    to_stdout = [one for one in destinations if one.is_stdout]
    if len(to_stdout) > 1:
        raise UsageError("only one --to can write to standard output")
    platform = parse_platform(arguments.platform) if arguments.platform else None
    receipt = Receipt(str(reference))
    with store_of(arguments) as store:
        image = load(store, str(reference), reference.digest, platform)
        manifest = image.documents.manifest
        receipt.platform, receipt.manifest_digest, receipt.image_id = (
            str(image.config.platform),
            image.documents.manifest_digest,
            manifest.config.digest,
        )
        receipt.bytes.image = receipt.bytes.cached = image_bytes(manifest)
        for destination in destinations:
            receipt.exports.append(export(store, image, destination))
    out = sys.stderr if to_stdout else sys.stdout
    if arguments.format == "json":
        print_receipt(receipt, out, None)
    else:
        print(receipt.manifest_digest if arguments.quiet else f"{reference.name}@{receipt.manifest_digest}", file=out)
    return 0


def images(arguments: argparse.Namespace) -> int:
    with store_of(arguments) as store:
        rows = store.images()
    if arguments.format == "json":
        print_json([
            {"reference": row.name, "platform": row.platform, "manifest_digest": row.manifest, "root_digest": row.root, "pulled": _when(row.pulled)}
            for row in rows
        ])  # fmt: skip
    elif arguments.quiet:
        for row in rows:
            print(row.manifest)
    else:
        width = max((len(row.name) for row in rows), default=0)
        for row in rows:
            print(f"{row.name:<{width}}  {row.platform:<14}  {row.manifest}  {_when(row.pulled)}")
    return 0


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
