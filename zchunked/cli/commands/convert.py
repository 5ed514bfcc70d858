"""`zpull convert SOURCE TARGET`: pulls what is lacking, writes the layers anew, and brings the image to TARGET."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace

from zchunked.cli.commands.pull import pull_of, resumable, source_of
from zchunked.cli.progress import human
from zchunked.cli.render import print_json, print_line, progress_of, write_digestfile
from zchunked.cli.settings import Settings, traffic_of
from zchunked.convert.image import ConvertedImage, Converter
from zchunked.convert.layers import ConvertSettings
from zchunked.errors import InterruptedPullError, TransferError, ZPullError
from zchunked.events import Noted
from zchunked.export import DamagedLayerError, Destination, export, parse_destination
from zchunked.oci.reference import parse_image
from zchunked.receipt import Export, Receipt
from zchunked.store import Store


def convert(settings: Settings) -> int:
    """Nothing is written to TARGET before every layer is ready."""
    # A layer that is zstd:chunked already is kept, so it has to be the registry's own, every byte.
    options, output = settings.options, settings.output
    settings = replace(settings, options=replace(options, frugality=replace(options.frugality, exact=True)))
    reference, destination = parse_image(settings.image), parse_destination(settings.target)
    how = ConvertSettings(settings.own["level"])
    receipt, traffic = Receipt(str(reference)), traffic_of(settings)
    progress = progress_of(output)
    converted: ConvertedImage | None = None
    failure: ZPullError | None = None
    with (
        Store(settings.store) as store,
        closing(source_of(settings, reference, store, traffic)) as source,
    ):
        pull = pull_of(settings, reference, source, store, traffic, receipt, progress)
        try:
            image = pull.run()
            converter = Converter(store, how, progress)
            try:
                converted = converter.run(image)
            except DamagedLayerError as damage:
                progress(Noted(f"{damage}; doing that now"))
                converted = Converter(store, how, progress).run(pull.heal(image))
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
        write_digestfile(output.digestfile, receipt)
    _print(settings, receipt, converted, failure)
    if converted is not None and output.tells_more:
        before, after = _sizes(converted)
        print(f"zpull: layers of {human(before)} are {human(after)} as zstd:chunked", file=sys.stderr)
    if failure is not None:
        raise failure
    return 0


def _deliver(store: Store, converted: ConvertedImage, to: Destination) -> Export:
    return export(store, converted.image, to)


def _sizes(converted: ConvertedImage) -> tuple[int, int]:
    return sum(one.source.size for one in converted.layers), sum(one.layer.size for one in converted.layers)


def _print(settings: Settings, receipt: Receipt, converted: ConvertedImage | None, failure: ZPullError | None) -> None:
    """What stands at TARGET now, as it can be pulled."""
    out = sys.stderr if settings.target.partition(":")[2].partition(":")[0] == "-" else sys.stdout
    if settings.output.format == "json":
        document: dict[str, object] = {
            "source": receipt.reference,
            "target": settings.target,
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
        print_line(digest or "" if settings.output.is_quiet else f"{settings.target}@{digest}", out)
