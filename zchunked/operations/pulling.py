"""Pull an image and export it to its destinations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from zchunked.errors import (
    InterruptedPullError,
    PermanentError,
    TransferError,
    ZPullError,
)
from zchunked.events import Pulled
from zchunked.oci.reference import ImageReference
from zchunked.operations.context import Context
from zchunked.pull.origin import Origin
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt
from zchunked.sources.shared_link import LinkShare
from zchunked.store.images import StoredImage

if TYPE_CHECKING:
    from zchunked.operations.destinations.writing import AnyDestination, Outlets

# ruff: noqa: PLC0415 - most pulls end in the store, and load nothing of what exports need


class ImagePull:
    """Pull one image, and write it to its destinations. Close it when done.

    Both steps raise one ZPullError, which has the receipt.
    """

    def __init__(
        self,
        context: Context,
        reference: ImageReference,
        to: Sequence[AnyDestination],
        receipt: Receipt,
        link_share: LinkShare | None = None,
    ) -> None:
        """`link_share`: among pulls that run side by side."""
        self._outlets: Outlets | None = None
        if to:
            from zchunked.operations.destinations.writing import Outlets

            self._outlets = Outlets(context, str(reference), to)
            if self._outlets.takes_blobs:
                options = context.options
                context = replace(
                    context, options=replace(options, gaps=replace(options.gaps, exact=True))
                )
        self._context, self._reference, self.receipt = context, reference, receipt
        self._traffic = context.traffic(link_share)
        self._origin: Origin | None = None
        self._pull: Pull | None = None
        self._image: StoredImage | None = None

    def fetch(self) -> None:
        """Into the store. On whatever thread, which gets the events. Engines take it meanwhile."""
        with explained(self.receipt, self._bytes_here):
            if self._outlets is not None:
                self._outlets.start()
            origin = self._origin = self._context.open(self._reference, self._traffic)
            pull = self._pull = pull_of(self._context, origin, self.receipt)
            if self._outlets is None:
                self._image = pull.run()
            else:
                with self._outlets.following(pull.partial_blobs):
                    self._image = pull.run()

    def deliver(self, *, force: bool) -> StoredImage:
        """Write to all destinations, after `fetch`. What the disk damaged is pulled again, once."""
        pull, image = self._pull, self._image
        assert pull is not None
        assert image is not None
        with explained(self.receipt, self._bytes_here):
            self._context.show(Pulled(image.documents.manifest_digest))
            if self._outlets is None:
                return image
            return self._outlets.write(image, self.receipt, pull, force=force)

    def close(self) -> None:
        """May be called twice."""
        if self._outlets is not None:
            self._outlets.close()
        origin, self._origin = self._origin, None
        if origin is not None:
            origin.close()

    def _bytes_here(self) -> int:
        return self._pull.bytes_here if self._pull is not None else 0


def pull(
    context: Context,
    reference: ImageReference,
    to: Sequence[AnyDestination],
    receipt: Receipt,
    *,
    force: bool,
) -> StoredImage:
    """Into the store, then to every destination. Raises one ZPullError, which has the receipt."""
    with closing(ImagePull(context, reference, to, receipt)) as image_pull:
        image_pull.fetch()
        return image_pull.deliver(force=force)


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
    """Add what is kept and how to go on, unless the same command would fail in the same way."""
    if isinstance(failure, PermanentError):
        return failure
    share = f"{here} of {size} bytes are here ({100 * here // size} %), " if size else ""
    return type(failure)(f"{failure}; {share}run the same command to resume")


def pull_of(context: Context, origin: Origin, receipt: Receipt) -> Pull:
    """A pull as the options say, as far as the source allows."""
    options = replace(context.options, offline=origin.is_offline)
    if origin.is_local:
        options = replace(options, stall_limits=replace(options.stall_limits, min_rate=None))
    if options.offline:
        from zchunked.pull.offline import root_of

        root = root_of(context.store, origin.name, origin.root, options.platform)
        origin = replace(origin, digest=root)
    return Pull(origin, context.store, options, receipt, context.show)
