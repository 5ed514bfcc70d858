"""Convert an image: pull it, write its layers as zstd:chunked, deliver it to TARGET."""

from __future__ import annotations

from contextlib import closing

from zchunked.convert.compare import update_cost
from zchunked.convert.index import Converted
from zchunked.convert.layers import ConvertSettings
from zchunked.errors import InterruptedPullError, NotFoundError, TransferError, ZPullError
from zchunked.oci.reference import ImageReference
from zchunked.operations.context import Context
from zchunked.operations.conversion import Conversion
from zchunked.operations.delivery import Delivery
from zchunked.operations.index_conversion import IndexConversion
from zchunked.operations.pulling import resumable
from zchunked.receipt import Receipt
from zchunked.results import ConvertedImageEntry, ConvertedLayerEntry, ConvertResult, UpdateCost


def convert(
    context: Context,
    reference: ImageReference,
    delivery: Delivery,
    how: ConvertSettings,
    *,
    all_platforms: bool = False,
    against: ImageReference | None = None,
    add: bool = False,
) -> ConvertResult:
    """Nothing is written to TARGET before every layer is ready. As `Client.convert`.

    An error that leaves carries `converted`, what was done by then.
    """
    conversion = _OneConversion(delivery.for_source(context, reference), reference, delivery, how)
    try:
        conversion.run(against, all_platforms=all_platforms, add=add)
    except (ZPullError, KeyboardInterrupt) as error:
        failure = conversion.failed(error)
        if failure is error:
            raise
        raise failure from error
    return conversion.result()


class _OneConversion:
    """One conversion: what was pulled, and what became of it."""

    def __init__(
        self, context: Context, reference: ImageReference, delivery: Delivery, how: ConvertSettings
    ) -> None:
        self._context, self._reference, self._how = context, reference, how
        self._delivery, self._traffic = delivery, context.traffic()
        self._images: list[Converted] = []
        self._notes: list[str] = []
        self._pulling: Conversion | None = None
        self._cost: UpdateCost | None = None
        self._digest = ""

    def run(self, against: ImageReference | None, *, all_platforms: bool, add: bool) -> None:
        with closing(self._context.open(self._reference, self._traffic)) as origin:
            source = self._pulling = Conversion(self._context, origin, self._how, self._notes)
            index = IndexConversion(self._context, origin, source)
            if all_platforms:
                index.convert(self._images)
            else:
                self._images.append(source.image(self._context.options.platform))
            if against is not None:
                self._compare(against)
            if all_platforms or add:
                shipment = index.shipment(self._images, keep=add)
                self._name(shipment.root.digest)
                self._delivery.index(self._context, shipment, str(self._reference))
            else:
                image = self._images[0].after.image
                self._name(image.documents.manifest_digest)
                self._delivery.image(self._context, image)

    def _compare(self, old: ImageReference) -> None:
        """Convert the old images too, if they have not been: only then an update's cost is known.

        Of several platforms the sum, without those that the old index lacks.
        """
        costs = []
        with closing(self._context.open(old, self._traffic)) as origin:
            self._pulling = conversion = Conversion(self._context, origin, self._how, self._notes)
            for new in (one.after for one in self._images):
                platform = new.image.config.platform
                try:
                    before = conversion.image(platform)
                except NotFoundError:
                    if len(self._images) == 1:
                        raise
                    self._notes.append(f"{old} has no image for {platform} to update from")
                    continue
                costs.append(update_cost(self._context.store, before.after, new))
        if costs:
            self._cost = UpdateCost(
                sum(cost.before for cost in costs),
                sum(cost.lean for cost in costs),
                sum(cost.exact for cost in costs),
            )

    def _name(self, root: str) -> None:
        """Name the images as TARGET does in the store: they can be pushed, or updated from."""
        self._digest = root
        if (name := self._delivery.stored_name) is not None:
            for one in self._images:
                image = one.after.image
                manifest, platform = image.documents.manifest_digest, str(image.config.platform)
                self._context.store.set_image(name, platform, manifest, type(manifest)(root))

    def failed(self, error: ZPullError | KeyboardInterrupt) -> ZPullError:
        """The error to raise, with what was done by then."""
        failure = error if isinstance(error, ZPullError) else InterruptedPullError("interrupted")
        result = self.result()
        is_pulling = result.uploaded is None  # a push says in its own words how to resume
        if is_pulling and isinstance(failure, TransferError | InterruptedPullError):
            here = self._pulling.bytes_here if self._pulling is not None else 0
            failure = resumable(failure, here, result.receipt.bytes.image)
        failure.receipt, failure.converted = result.receipt, result
        return failure

    def result(self) -> ConvertResult:
        layers = [layer for one in self._images for layer in one.after.layers]
        before = {layer.source.digest: layer.source.size for layer in layers}
        after = {layer.layer.digest: layer.layer.size for layer in layers}
        receipt = self._pulling.receipt if self._pulling is not None else None
        return ConvertResult(
            str(self._reference),
            self._digest,
            tuple(_entry(one) for one in self._images),
            sum(before.values()),
            sum(after.values()),
            self._traffic.fetched,
            tuple(self._notes),
            self._cost,
            self._delivery.uploaded,
            receipt or Receipt(str(self._reference)),
        )


def _entry(one: Converted) -> ConvertedImageEntry:
    image = one.after.image
    return ConvertedImageEntry(
        str(image.config.platform),
        one.before.documents.manifest_digest,
        image.documents.manifest_digest,
        image.documents.manifest.config.digest,
        tuple(
            ConvertedLayerEntry(
                layer.source.digest,
                layer.layer.digest,
                layer.diff_id,
                layer.source.size,
                layer.layer.size,
                layer.outcome,
                layer.note or None,
            )
            for layer in one.after.layers
        ),
    )
