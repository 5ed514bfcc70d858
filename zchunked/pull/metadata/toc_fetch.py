"""Find and fetch a layer's TOC and tar-split: in one range, the TOC read while it arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from zchunked.download.blobs.fetch_plan import FetchPlan
from zchunked.errors import IntegrityError
from zchunked.formats.annotations import Location
from zchunked.formats.budget import ImageBudget
from zchunked.formats.layer_format import format_of
from zchunked.layers.metadata import LayerIndex, check_tarsplit
from zchunked.oci.documents import Descriptor
from zchunked.pull.metadata.early_chunks import EarlyChunks, EarlyRules, is_toc_proved
from zchunked.pull.metadata.layer_metadata import LayerMetadata
from zchunked.pull.metadata.toc_stream import TocStream
from zchunked.pull.transfer import Transfer
from zchunked.ranges import ByteRange, merge, total

LONG_TOC = 512 << 10
"""Bytes, compressed: about 10,000 files, which take 50 ms."""
_MOST_BETWEEN = 4 << 10  # frame headers, the footer, and whatever an unknown writer put there


@dataclass(frozen=True, slots=True, eq=False)
class TocFetcher:
    """Fetches TOCs of the layers of one image. `budget`: memory for all their TOCs.

    `skip`: whether a TOC of so many bytes is not read although it arrives. `early`: when and how
    chunks of a layer are requested before its plan; None: they are not.
    """

    transfer: Transfer
    budget: ImageBudget
    skip: Callable[[Descriptor, int], bool] = lambda *_: False
    early: EarlyRules | None = None

    @property
    def _is_thrifty(self) -> bool:
        """Whether no byte of a blob's tail is fetched that the lean way has no use for."""
        return self.transfer.options.gaps.is_metered

    def locate(self, layer: Descriptor, *, may_grow: bool) -> Location:
        """Fetch the end of the blob where the annotations do not tell where its TOC lies.

        `may_grow`: to the whole blob, where the host serves no ranges. Raises FormatError,
        UnsupportedLayerError, and what ends a download.
        """
        form, blob, store = format_of(layer), layer.digest, self.transfer.store
        least, tail = form.tail(layer.size), form.tail(layer.size, is_thrifty=self._is_thrifty)
        limits = self.transfer.options.limits
        if least is None or tail is None:
            return form.locate(layer, limits=limits)
        if not store.covers(blob, least):
            left = store.missing(blob, [tail])
            plan = FetchPlan(layer, [(span,) for span in left], [tail], [tail])
            self.transfer.downloader.fetch(plan, may_grow=may_grow)
        return form.locate(layer, store.read(blob, *least), limits)

    def fetch(
        self, layer: Descriptor, location: Location, metadata: LayerMetadata, *, may_grow: bool
    ) -> None:
        """Fetch what is missing of TOC and tar-split, in one range, and read them.

        The TOC comes first, and is read as it arrives. Raises as `locate` does.
        """
        store, downloader = self.transfer.store, self.transfer.downloader
        tarsplit, parts = location.tarsplit, location.parts
        tail = (
            location.metadata if self._is_thrifty else ByteRange(location.payload_end, layer.size)
        )
        if tail.size > total(parts) + _MOST_BETWEEN:
            tail = location.metadata
        metadata.in_flight = merge([tail, *parts])
        for is_last in (False, True):
            reader = self._reader(layer, location, metadata)
            left = store.missing(
                layer.digest, merge([tail, *parts] if not self._is_thrifty else parts)
            )
            if len(left) > 1:
                left = store.missing(layer.digest, merge([tail, *parts]))
            wanted = parts if self._is_thrifty else list(metadata.in_flight)
            plan = FetchPlan(layer, [(span,) for span in left], wanted, wanted)
            downloader.fetch(plan, may_grow=may_grow, on_bytes=reader.look, pool=self.transfer.pool)
            try:
                with self.transfer.chameleon.local_work():  # stored tables are read before it
                    index = reader.finish()
                if index is None:
                    metadata.facts.toc = "slow"
                    return
                check_tarsplit(store, index)
            except IntegrityError:
                wrong = list(metadata.in_flight)
                if metadata.index is not None and tarsplit is not None:
                    wrong = [tarsplit.span]
                if is_last or not self.transfer.take_back_tables(plan, wrong):
                    raise
            else:
                return

    def _reader(self, layer: Descriptor, location: Location, metadata: LayerMetadata) -> TocStream:
        """A reader of its TOC; of a long one that is stored, it requests chunks meanwhile."""

        def found(index: LayerIndex) -> None:
            metadata.index = index

        transfer, span, early = self.transfer, location.toc.span, None
        if self.early and span.size >= LONG_TOC and is_toc_proved(transfer.store, layer, location):
            early = EarlyChunks(
                transfer.store, transfer.downloader, layer, metadata.begun, self.early
            )
        toc = format_of(layer).toc_reader(layer, location, transfer.options.limits, self.budget)
        skip = partial(self.skip, layer, span.size)
        return TocStream(
            transfer.store,
            layer,
            location,
            toc,
            transfer.pool,
            transfer.stop,
            found,
            skip,
            early,
            keeps_names=not transfer.options.gaps.exact,
        )
