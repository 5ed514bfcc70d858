"""`zpull convert SOURCE TARGET`: pulls what is lacking, writes the layers anew, and brings the image to TARGET."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import asdict, replace

from zchunked.cli.commands.delivery import Delivery
from zchunked.cli.commands.pull import pull as plan_instead
from zchunked.cli.commands.wiring import context_of
from zchunked.cli.progress import Progress, human
from zchunked.cli.render import print_json, print_line, progress_of, write_digestfile
from zchunked.cli.settings import ALL, Settings
from zchunked.cli.stores import open_store
from zchunked.convert.compare import UpdateCost, update_cost
from zchunked.convert.image import Converter
from zchunked.convert.index import Converted, entry_of, index_document, platforms_of
from zchunked.convert.layers import ConvertSettings
from zchunked.errors import InterruptedPullError, TransferError, ZPullError
from zchunked.events import Noted
from zchunked.export import DamagedLayerError
from zchunked.export.shipment import Shipment, shipment_of
from zchunked.formats.tar_rewrite import TarRewriter
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Index, parse_document
from zchunked.oci.platform import Platform
from zchunked.oci.reference import ImageReference, parse_image
from zchunked.operations.context import traffic_of
from zchunked.operations.pulling import pull_of, resumable
from zchunked.operations.pushing import for_source
from zchunked.pull.objects import ObjectFetcher
from zchunked.pull.origin import Origin
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt
from zchunked.store import Store


def convert(settings: Settings) -> int:
    """Nothing is written to TARGET before every layer is ready."""
    # A layer that is zstd:chunked already is kept, so it has to be the registry's own, every byte.
    options, output = settings.options, settings.output
    settings = replace(settings, options=replace(options, frugality=replace(options.frugality, exact=True)))
    delivery = Delivery(settings)
    if settings.is_plan:
        return plan_instead(settings)
    progress = progress_of(output)
    failure: ZPullError | None = None
    with open_store(settings.store) as store, ExitStack() as stack:
        work = Conversion(settings, store, progress, stack)
        try:
            work.run(delivery)
        except ZPullError as error:
            failure = error
        except KeyboardInterrupt:
            failure = InterruptedPullError("interrupted")
        finally:
            progress.close()
    if isinstance(failure, (TransferError, InterruptedPullError)):
        failure = failure if delivery.pusher else resumable(failure, *work.progress_bytes)
    if failure is None:
        write_digestfile(output.digestfile, work.receipt)
    work.print(delivery, failure)
    if output.tells_more:
        work.tell()
        delivery.tell()
    if failure is not None:
        raise failure
    return 0


class Conversion:
    """One run of the command: what was pulled, and what became of it."""

    def __init__(self, settings: Settings, store: Store, progress: Progress, stack: ExitStack) -> None:
        """What is opened is closed with `stack`."""
        self._settings, self._store, self._progress, self._stack = settings, store, progress, stack
        self._reference: ImageReference = parse_image(settings.image)
        self.receipt = Receipt(str(self._reference))
        self._traffic = traffic_of(settings.options)
        self._pull: Pull | None = None
        self._images: list[Converted] = []
        self._fetched = 0
        self._root_digest: Digest | None = None
        self._notes: list[str] = []
        self._cost: UpdateCost | None = None

    @property
    def progress_bytes(self) -> tuple[int, int]:
        """Of the image that is being pulled: what is here, and all of it."""
        return (self._pull.bytes_here if self._pull else 0), self.receipt.bytes.image

    def run(self, delivery: Delivery) -> None:
        """Raises ZPullError."""
        settings = self._settings
        context = context_of(settings, self._store, self._progress)
        if not (delivery.is_local or delivery.is_bucket):
            context = for_source(context, self._reference, delivery.registry())
        origin = self._stack.enter_context(closing(context.open(self._reference, self._traffic)))
        root = b"{}"
        platforms: list[Platform] = []
        if settings.own["platform"] == ALL:
            root = self._root(origin)
            document = parse_document(root)
            platforms = platforms_of(document) if isinstance(document, Index) else []
            if isinstance(document, Index) and any(not one.is_image for one in document.instances):
                self._note("attestations are left out: they speak of the images that were converted")
        for platform in platforms or [settings.options.platform]:
            self._images.append(self._convert(origin, platform, root))
        if settings.own["against"]:
            self._compare(settings, parse_image(settings.own["against"]))
        if platforms or settings.own["add"]:
            self._deliver_index(delivery, root)
        else:
            image = self._images[0].after.image
            self._name(delivery, image.documents.manifest_digest)
            delivery.image(self._store, image, self._progress)

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._progress(Noted(text))

    def _root(self, origin: Origin) -> bytes:
        """What SOURCE names, as it is."""
        with ObjectFetcher(origin, self._store, self._settings.options, self._progress) as objects:
            return objects.manifest(None)

    def _how(self) -> ConvertSettings:
        own = self._settings.own
        latest, normalize = own["rewrite_timestamp"], own["normalize"]
        rewrite = TarRewriter(latest, normalize) if normalize or latest is not None else None
        return ConvertSettings(own["level"], rewrite)

    def _compare(self, settings: Settings, reference: ImageReference) -> None:
        """What an update from that image costs; it is converted for that, if it has not been."""
        context = context_of(settings, self._store, self._progress)
        with closing(context.open(reference, self._traffic)) as origin:
            platform = self._images[0].after.image.config.platform
            old = self._convert(origin, platform, b"{}")
        self._cost = update_cost(self._store, old.after, self._images[0].after)

    def _convert(self, origin: Origin, platform: Platform, root: bytes) -> Converted:
        settings = replace(self._settings, options=replace(self._settings.options, platform=platform))
        self.receipt = Receipt(origin.name)
        context = context_of(settings, self._store, self._progress)
        pull = self._pull = pull_of(context, origin, self.receipt)
        try:
            before = pull.run()
        finally:
            self._fetched = self._traffic.fetched
        self._progress.close()
        how = self._how()
        try:
            after = Converter(self._store, how, self._progress).run(before)
        except DamagedLayerError as damage:
            self._note(f"{damage}; doing that now")
            before = pull.heal(before)
            after = Converter(self._store, how, self._progress).run(before)
        was, now = before.documents.manifest.config.digest, after.image.documents.manifest.config.digest
        if was != now:
            self._note(f"rewritten: other diff IDs, and image ID {now} instead of {was}")
        return Converted(before, after, entry_of(root, before))

    def _deliver_index(self, delivery: Delivery, root: bytes) -> None:
        keep = self._settings.own["add"]
        descriptor, data = index_document(root, self._images, keep=keep)
        self._store.put(data)
        shipment = Shipment([], [(descriptor, data)], None)
        for one in reversed(self._images):
            shipment = shipment.after(shipment_of(self._store, one.after.image))
            if keep and one.is_new:
                shipment = shipment.after(shipment_of(self._store, one.before))
        self._name(delivery, descriptor.digest)
        delivery.index(self._store, shipment, str(self._reference), self._progress)

    def _name(self, delivery: Delivery, root: Digest) -> None:
        """The store knows the images by TARGET's name, so that they can be pushed, or updated from."""
        self._root_digest = self.receipt.manifest_digest = root
        if (name := delivery.stored_name) is not None:
            for one in self._images:
                image = one.after.image
                self._store.set_image(name, str(image.config.platform), image.documents.manifest_digest, root)

    # ── what is said ──

    def _sizes(self) -> tuple[int, int]:
        """Bytes of the layers of all images, before and after; each blob once."""
        layers = [layer for one in self._images for layer in one.after.layers]
        before = {layer.source.digest: layer.source.size for layer in layers}
        after = {layer.layer.digest: layer.layer.size for layer in layers}
        return sum(before.values()), sum(after.values())

    def tell(self) -> None:
        """In a line, for people."""
        if self._images:
            before, after = self._sizes()
            print(f"zpull: layers of {human(before)} are {human(after)} as zstd:chunked", file=sys.stderr)
        if self._cost is not None:
            cost, old = self._cost, self._settings.own["against"]
            now = f"{human(cost.lean)} as zstd:chunked ({human(cost.exact)} for the very blobs)"
            print(f"zpull: an update from {old}: {human(cost.before)} as it was, {now}", file=sys.stderr)

    def print(self, delivery: Delivery, failure: ZPullError | None) -> None:
        """What stands at TARGET now, as it can be pulled."""
        out = sys.stderr if delivery.is_stdout else sys.stdout
        target, digest = self._settings.target, self._root_digest or ""
        if self._settings.output.format == "json":
            before, after = self._sizes()
            document: dict[str, object] = {
                "source": str(self._reference),
                "target": target,
                "manifest_digest": digest,
                "bytes": {"before": before, "after": after},
                "fetched_bytes": self._fetched,
                "images": [self._image(one) for one in self._images],
                "notes": self._notes,
            }
            if self._cost is not None:
                document["against"] = {"source": self._settings.own["against"], **asdict(self._cost)}
            if delivery.pusher is not None:
                document["push"] = asdict(delivery.pusher.pushed)
            print_json(document | ({"error": str(failure)} if failure else {}), out)
        elif failure is None:
            print_line(digest if self._settings.output.is_quiet else f"{target}@{digest}", out)

    @staticmethod
    def _image(one: Converted) -> dict[str, object]:
        image = one.after.image
        return {
            "platform": str(image.config.platform),
            "source_digest": one.before.documents.manifest_digest,
            "manifest_digest": image.documents.manifest_digest,
            "image_id": image.documents.manifest.config.digest,
            "layers": [
                {
                    "source": layer.source.digest,
                    "digest": layer.layer.digest,
                    "diff_id": layer.diff_id,
                    "size_before": layer.source.size,
                    "size": layer.layer.size,
                    "outcome": layer.outcome,
                    "reason": layer.note or None,
                }
                for layer in one.after.layers
            ],
        }
