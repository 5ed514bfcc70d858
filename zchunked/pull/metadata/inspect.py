"""Inspect a layer before it is planned: is it stored, what is in its blob."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from zchunked.errors import FormatError, RangeIgnoredError, UnsupportedLayerError
from zchunked.formats.budget import ImageBudget
from zchunked.formats.layer_format import format_of, is_chunked, toc_bytes_of
from zchunked.limits import Limits
from zchunked.oci.documents import Descriptor
from zchunked.pull.metadata.early_chunks import EarlyRules
from zchunked.pull.metadata.layer_metadata import LayerMetadata
from zchunked.pull.metadata.toc_fetch import LONG_TOC, TocFetcher
from zchunked.pull.planning.request_shape import early_runs
from zchunked.pull.planning.stored_frames import StoredFrames
from zchunked.pull.session import PullSession
from zchunked.ranges import ByteRange, total


@dataclass(frozen=True, slots=True, eq=False)
class Inspector:
    """Inspects the layers of one image, each on a worker of the fetch queue.

    `may_take`: whether a blob may be fetched whole at once, where that is free or the host leaves
    no choice. `needs_no_toc`: whether a layer's TOC could tell nothing that makes another way
    than whole better.
    """

    tables: TocFetcher
    may_take: bool = True
    needs_no_toc: Callable[[Descriptor], bool] = lambda _: False

    def inspect(self, layer: Descriptor, metadata: LayerMetadata) -> None:
        """Fetch TOC and tar-split of a layer, or report what keeps it from coming in parts."""
        store, limits = self.tables.transfer.store, self.tables.transfer.options.limits
        facts = metadata.facts
        metadata.is_here = self._adopt(layer)
        facts.here = total(store.covered(layer.digest))
        if store.is_whole(layer.digest):
            metadata.is_here = True
        elif self.needs_no_toc(layer) and not (facts.here and self._has_toc(layer)):
            facts.toc = "useless"
            facts.no_parts = None if is_chunked(layer) else _why_plain(layer, limits)
        else:
            try:
                location = self.tables.locate(layer, may_grow=self.may_take)
                self.tables.fetch(layer, location, metadata, may_grow=self._may_grow)
            except UnsupportedLayerError as error:
                metadata.index, facts.no_parts = None, str(error)
            except RangeIgnoredError:
                if self._may_grow:
                    raise
                facts.has_ranges = False
            if self.tables.transfer.downloader.arrivals.of(layer.digest).claim.was_made:
                facts.has_ranges = False
        metadata.is_complete = True

    @property
    def _may_grow(self) -> bool:
        """Whether a blob may be fetched whole where that costs: not if a plan may be refused."""
        return self.may_take and self.tables.transfer.options.max_bytes is None

    def _has_toc(self, layer: Descriptor) -> bool:
        """Whether an earlier run has fetched the TOC; if not, it was fetching the layer whole."""
        form, transfer = format_of(layer), self.tables.transfer
        try:
            span = (
                form.tail(layer.size) or form.locate(layer, limits=transfer.options.limits).toc.span
            )
        except (UnsupportedLayerError, FormatError):
            return True  # so that `locate` says why
        return transfer.store.covers(layer.digest, span)

    def _adopt(self, layer: Descriptor) -> bool:
        """Adopt the blob whole, a file of this machine, where that copies nothing.

        It is proved later.
        """
        store, files = self.tables.transfer.store, self.tables.transfer.origin.files
        if (
            not self.may_take
            or files is None
            or store.covers(layer.digest, ByteRange(0, max(layer.size, 1)))
        ):
            return False
        return store.adopt(layer.digest, layer.size, files.open_blob(layer))


def inspector_of(
    session: PullSession,
    budget: ImageBudget,
    stored: StoredFrames,
    is_planned: Callable[[bytes], bool],
) -> Inspector:
    """The inspector of a pull, which may request chunks early; `is_planned` as in `EarlyRules`."""
    gaps = session.options.gaps
    runs = partial(early_runs, gaps, session.conditions.now)
    headers = stored.known_headers if not gaps.is_metered else None
    rules = EarlyRules(runs, lambda: stored.are_known, stored.known_of, is_planned, headers)
    return Inspector(TocFetcher(session, budget, early=rules))


def _why_plain(layer: Descriptor, limits: Limits) -> str | None:
    """Why a layer has no frames; None where it has."""
    try:
        format_of(layer).locate(layer, limits=limits)
    except UnsupportedLayerError as error:
        return str(error)
    return None


def toc_rank(layer: Descriptor, limits: Limits) -> int:
    """The turn in which a layer is planned: 0 for a TOC that is read in no time, or none.

    Each further rank is a TOC twice as long; layers of one rank are planned as the manifest lists
    them.

    A run that is killed while it reads a long table has asked for chunks of other layers by then;
    otherwise such runs would fetch nothing, however often.
    """
    return ((toc_bytes_of(layer, limits) or 0) // LONG_TOC).bit_length()
