"""`zpull convert SOURCE TARGET`: pulls what is lacking, writes the layers anew, and brings the image to TARGET."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from contextlib import closing

from zchunked.cli.commands.pull import pull_of, resumable, source_of
from zchunked.cli.progress import Progress, human
from zchunked.cli.render import print_json, store_of, write_digestfile
from zchunked.convert.image import ConvertedImage, Converter
from zchunked.convert.layers import ConvertSettings
from zchunked.errors import InterruptedPullError, TransferError, ZPullError
from zchunked.events import Noted
from zchunked.export import DamagedLayerError, Destination, export, parse_destination
from zchunked.oci.reference import parse_image
from zchunked.receipt import Export, Receipt
from zchunked.sources.traffic import Traffic
from zchunked.store import Store


def convert(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Nothing is written to TARGET before every layer is ready."""
    # A layer that is zstd:chunked already is kept, so it has to be the registry's own, every byte.
    arguments = argparse.Namespace(**vars(arguments) | {"exact": True, "to": []})
    reference, destination = parse_image(arguments.image), parse_destination(arguments.target)
    settings = ConvertSettings(arguments.level)
    receipt, traffic = Receipt(str(reference)), Traffic(time.monotonic)
    is_silent = arguments.quiet and not arguments.explain_retries
    progress = Progress("none" if is_silent else arguments.progress, sys.stderr, explain=arguments.explain_retries)
    converted: ConvertedImage | None = None
    failure: ZPullError | None = None
    with (
        store_of(arguments) as store,
        closing(source_of(arguments, environment, reference, store, traffic)) as source,
    ):
        pull = pull_of(arguments, reference, source, store, traffic, receipt, progress)
        try:
            image = pull.run()
            converter = Converter(store, settings, progress)
            try:
                converted = converter.run(image)
            except DamagedLayerError as damage:
                progress(Noted(f"{damage}; doing that now"))
                converted = Converter(store, settings, progress).run(pull.heal(image))
            receipt.exports.append(_deliver(store, converted, destination))
            receipt.manifest_digest = converted.image.documents.manifest_digest
        except ZPullError as error:
            failure = error
        except KeyboardInterrupt:
            failure = InterruptedPullError("interrupted")
        finally:
            progress.close()
    if isinstance(failure, (TransferError, InterruptedPullError)):
        failure = resumable(failure, pull.bytes_here, receipt.bytes.image)
    if failure is None:
        write_digestfile(arguments.digestfile, receipt)
    _print(arguments, receipt, converted, failure)
    if converted is not None and not is_silent and arguments.progress not in ("none", "json"):
        before, after = _sizes(converted)
        print(f"zpull: layers of {human(before)} are {human(after)} as zstd:chunked", file=sys.stderr)
    if failure is not None:
        raise failure
    return 0


def _deliver(store: Store, converted: ConvertedImage, to: Destination) -> Export:
    return export(store, converted.image, to)


def _sizes(converted: ConvertedImage) -> tuple[int, int]:
    return sum(one.source.size for one in converted.layers), sum(one.layer.size for one in converted.layers)


def _print(
    arguments: argparse.Namespace, receipt: Receipt, converted: ConvertedImage | None, failure: ZPullError | None
) -> None:
    """What stands at TARGET now, as it can be pulled."""
    out = sys.stderr if arguments.target.partition(":")[2].partition(":")[0] == "-" else sys.stdout
    if arguments.format == "json":
        document: dict[str, object] = {
            "source": receipt.reference,
            "target": arguments.target,
            "platform": receipt.platform,
            "manifest_digest": receipt.manifest_digest,
            "fetched_bytes": receipt.bytes.fetched,
        }
        if converted is not None:
            before, after = _sizes(converted)
            document |= {
                "image_id": converted.image.documents.manifest.config.digest,
                "bytes": {"before": before, "after": after},
                "layers": [
                    {
                        "source": one.source.digest,
                        "digest": one.layer.digest,
                        "diff_id": one.diff_id,
                        "size_before": one.source.size,
                        "size": one.layer.size,
                        "outcome": one.outcome,
                        "reason": one.note or None,
                    }
                    for one in converted.layers
                ],
            }
        print_json(document | ({"error": str(failure)} if failure else {}), out)
    elif failure is None:
        digest = receipt.manifest_digest
        print(digest if arguments.quiet else f"{arguments.target}@{digest}", file=out)
