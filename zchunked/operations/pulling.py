"""Pull an image and export it, or plan that: from a reference to an image in the store and where it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from zchunked.download.orders import Order
from zchunked.errors import InterruptedPullError, PermanentError, TransferError, ZPullError
from zchunked.events import Noted, Pulled
from zchunked.export import DamagedLayerError
from zchunked.interfaces import Source
from zchunked.oci.digest import Digest
from zchunked.oci.reference import ImageReference
from zchunked.operations.context import Context
from zchunked.operations.writing import AnyDestination, EngineDestination, write
from zchunked.pull.offline import root_of
from zchunked.pull.pull import Pull
from zchunked.ranges import total
from zchunked.receipt import Accounts, LayerEntry, Receipt
from zchunked.results import PlannedLayer
from zchunked.sources.layout import LayoutSource
from zchunked.sources.offline import OfflineSource
from zchunked.sources.traffic import Traffic
from zchunked.store.images import StoredImage


def pull(
    context: Context, reference: ImageReference, to: Sequence[AnyDestination], receipt: Receipt, *, force: bool
) -> StoredImage:
    """Into the store, then to every destination. Raises one ZPullError, which has the receipt."""
    if any(isinstance(one, EngineDestination) and not one.load for one in to):
        # An engine is given the registry's own blobs, and only those that it lacks.
        options = context.options
        context = replace(context, options=replace(options, frugality=replace(options.frugality, exact=True)))
    traffic = context.traffic()
    work: list[Pull] = []
    with (
        explained(receipt, lambda: work[0].bytes_here if work else 0),
        closing(context.open(reference, traffic)) as source,
    ):
        work.append(pull_of(context, reference, source, traffic, receipt))
        image = work[0].run()
        context.show(Pulled(image.documents.manifest_digest))
        return _export(context, work[0], image, to, receipt, force=force)


def plan(context: Context, reference: ImageReference, receipt: Receipt) -> list[PlannedLayer]:
    """What each layer would cost; the receipt gets the estimate. Raises one ZPullError, which has the receipt."""
    traffic = context.traffic()
    with explained(receipt, lambda: 0), closing(context.open(reference, traffic)) as source:
        tasks = pull_of(context, reference, source, traffic, receipt).plan()
    orders = {str(task.layer.digest): task.order for task in tasks}
    return [_planned(entry, orders.get(entry.digest)) for entry in receipt.layers]


def _planned(entry: LayerEntry, order: Order | None) -> PlannedLayer:
    runs = order.runs if order else []
    return PlannedLayer(
        entry.digest,
        entry.kind,
        entry.mode,
        entry.size,
        entry.cached_bytes,
        fetch_bytes=sum(total(run) for run in runs),
        gap_bytes=order.worth([span for run in runs for span in run]).gap if order else 0,
        requests=len(runs),
        reason=entry.reason,
    )


@contextmanager
def explained(receipt: Receipt, bytes_here: Callable[[], int]) -> Iterator[None]:
    """Errors that leave get the receipt, and say how to resume where that helps."""
    try:
        yield
    except KeyboardInterrupt as error:  # outside a pull: while something is exported or sent
        failure = resumable(InterruptedPullError("interrupted"), bytes_here(), receipt.bytes.image)
        failure.receipt = receipt
        raise failure from error
    except (TransferError, InterruptedPullError) as error:
        failure = resumable(error, bytes_here(), receipt.bytes.image)
        failure.receipt = receipt
        raise failure from error
    except ZPullError as error:
        error.receipt = receipt
        raise


def resumable(failure: ZPullError, here: int, size: int) -> ZPullError:
    """Say what is kept and how to go on, except where the same command would fail in the same way."""
    if isinstance(failure, PermanentError):
        return failure
    share = f"{here} of {size} bytes are here ({100 * here // size} %), " if size else ""
    return type(failure)(f"{failure}; {share}run the same command to resume")


def pull_of(
    context: Context,
    reference: ImageReference,
    source: Source,
    traffic: Traffic,
    receipt: Receipt,
    digest: Digest | None = None,
) -> Pull:
    """`digest`: what to pull instead of what the reference names by now."""
    files = source.files if isinstance(source, LayoutSource) else None
    is_local = isinstance(source, LayoutSource) and source.is_local
    options = replace(context.options, offline=isinstance(source, OfflineSource))
    if is_local:
        options = replace(options, bounds=replace(options.bounds, min_rate=None))
    digest = digest or reference.digest
    if options.offline:
        digest = root_of(context.store, str(reference), digest, options.platform)
    return Pull(
        str(reference),
        digest,
        source,
        context.store,
        traffic=traffic,
        options=options,
        receipt=receipt,
        show=context.show,
        files=files,
        accounts=Accounts(is_free=is_local),
    )


def _export(
    context: Context,
    pull: Pull,
    image: StoredImage,
    to: Sequence[AnyDestination],
    receipt: Receipt,
    *,
    force: bool,
) -> StoredImage:
    """To every destination. Where the disk has spoilt what was pulled, that is pulled again, once."""
    is_healed = False

    for destination in to:
        try:
            write(context, image, destination, receipt, force=force)
        except DamagedLayerError as damage:
            if is_healed:
                raise
            context.show(Noted(f"{damage}; doing that now"))
            image, is_healed = pull.heal(image), True
            context.show(Pulled(image.documents.manifest_digest))
            if destination.is_stream:
                raise DamagedLayerError(
                    f"the archive at {destination.text} is broken, for layers were damaged in the store ({damage}); "
                    "they are healed now: run the same command again"
                ) from damage
            write(context, image, destination, receipt, force=force)
    return image
