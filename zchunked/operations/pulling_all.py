"""Pull several images side by side, over the same connections, each byte once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from zchunked.download.workers import WorkerPool
from zchunked.errors import InterruptedPullError, ZPullError
from zchunked.events import Event
from zchunked.oci.reference import ImageReference
from zchunked.operations.context import Context, limit_of
from zchunked.operations.pulling import ImagePull
from zchunked.options import Options
from zchunked.receipt import Receipt
from zchunked.sources.shared_link import LinkShare, SharedLink
from zchunked.store.images import StoredImage

if TYPE_CHECKING:
    from zchunked.operations.destinations.writing import AnyDestination

# Each has a dozen threads and a table of contents in memory; more would share the same link
_MOST_AT_ONCE = 4
Outcome = StoredImage | ZPullError


def pull_all(
    context: Context,
    references: Sequence[ImageReference],
    to: Sequence[AnyDestination],
    *,
    force: bool,
) -> Iterator[tuple[Receipt, Outcome]]:
    """Pull several images; yields each outcome in order, as soon as known; caller exports.

    A layer that several of them lack is fetched by one of them, which the others wait for; so do
    those of one repository, for versions of an image have frames in common. After Ctrl-C the
    outcome of all that are not done is InterruptedPullError. To leave the iterator early ends the
    pulls too.
    """
    side_by_side = _SideBySide(context, references, to, force=force)
    with closing(side_by_side):
        yield from side_by_side.outcomes()


class _SideBySide:
    """Made and used on the caller's thread; the pulls run on workers."""

    def __init__(
        self,
        context: Context,
        references: Sequence[ImageReference],
        to: Sequence[AnyDestination],
        *,
        force: bool,
    ) -> None:
        self._show, self._force = context.show, force
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        context = replace(context, show=self._events.put, limit=limit_of(context.options))
        self._link = SharedLink(context.options.jobs)
        self._shares = [self._link.join(reference.name) for reference in references]
        self._pulls = [
            ImagePull(context, reference, to, Receipt(str(reference)), link_share)
            for reference, link_share in zip(references, self._shares, strict=True)
        ]
        self._failures: dict[int, ZPullError | None] = {}
        self._stop = threading.Event()
        self._pool = WorkerPool({"images": _at_once(len(references), context.options)}, self._stop)

    def outcomes(self) -> Iterator[tuple[Receipt, Outcome]]:
        with self._pool:
            for number, (image_pull, link_share) in enumerate(
                zip(self._pulls, self._shares, strict=True)
            ):
                self._pool.submit("images", partial(self._fetch, number, image_pull, link_share))
            try:
                for number, image_pull in enumerate(self._pulls):
                    yield image_pull.receipt, self._outcome(number, image_pull)
                    image_pull.close()
            finally:
                self._link.is_over.set()

    def _fetch(self, number: int, image_pull: ImagePull, link_share: LinkShare) -> None:
        failure: ZPullError | None = None
        try:
            if self._link.is_over.is_set():
                raise InterruptedPullError("interrupted")
            image_pull.fetch()
        except ZPullError as error:
            failure = error
        finally:
            link_share.end()
        self._failures[number] = failure

    def _outcome(self, number: int, image_pull: ImagePull) -> Outcome:
        ended = InterruptedPullError("interrupted; run the same command to resume")
        ended.receipt = image_pull.receipt
        try:
            self._pool.wait(self._tick, until=lambda: number in self._failures)
            failure = self._failures.get(number, ended)
            return failure if failure is not None else image_pull.deliver(force=self._force)
        except KeyboardInterrupt:
            self._end()
            return self._failures.get(number) or ended
        except InterruptedPullError as error:  # while it was exported
            self._end()
            return error
        except ZPullError as error:
            return error
        finally:
            self._tick()

    def _tick(self) -> None:
        while not self._events.empty():
            self._show(self._events.get())

    def _end(self) -> None:
        """End running pulls as Ctrl-C does; the others do not begin."""
        self._link.is_over.set()
        with suppress(KeyboardInterrupt):
            self._pool.wait(self._tick)

    def close(self) -> None:
        self._link.close()
        self._stop.set()
        with ExitStack() as stack:
            for image_pull in self._pulls:
                stack.callback(image_pull.close)


def _at_once(count: int, options: Options) -> int:
    """How many pulls run at once: one, where each must keep a minimum rate."""
    return (
        1
        if options.stall_limits.min_rate is not None
        else max(1, min(count, options.jobs, _MOST_AT_ONCE))
    )
