"""Fetch what tells how a layer's blob is made, TOC and tar-split, or say why it comes whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from zchunked.download.downloader import Downloader
from zchunked.download.orders import Order
from zchunked.download.workers import WorkerPool
from zchunked.errors import FormatError, IntegrityError, RangeIgnoredError, UnsupportedLayerError
from zchunked.formats.annotations import Location, kind_of
from zchunked.formats.budget import ImageBudget
from zchunked.formats.layer_format import format_of
from zchunked.interfaces import Files
from zchunked.layers.metadata import LayerIndex, check_tarsplit
from zchunked.limits import Limits
from zchunked.oci.documents import Descriptor
from zchunked.pull.early import EarlyChunks, EarlyTerms, is_table_proved
from zchunked.pull.layer_metadata import LayerMetadata
from zchunked.pull.table import TableReader
from zchunked.ranges import ByteRange, merge, total
from zchunked.store import Store

NO_RANGES = "its host serves no ranges"
NOTHING_HERE = "nothing of it is in the store"
_MOST_BETWEEN = 4 << 10  # frame headers, the footer, and whatever an unknown writer put there
_SHORT_TABLE = 512 << 10  # bytes: about 10 000 files, which take 50 ms


@dataclass(frozen=True, slots=True, eq=False)
class MetadataFetcher:
    """Looks into layers, each on a worker of the fetch lane. `files`: the source's blobs, where
    they are files here.

    `may_take`: whether a blob may be taken whole at once, where that is free or the host leaves no
    choice. `may_grow`: also where it is not free; a plan that may be refused comes first.
    `is_thrifty`: no byte of a blob's tail is fetched that the lean way has no use for. `is_idle`:
    whether a layer's TOC would tell nothing that could make it come another way than whole; `skip`
    says why, as one of so many bytes comes. `early_runs`: requests for chunks of a layer that is
    not planned yet; None: there are none. `is_indexed`: whether the store can tell which chunks it
    has. `is_coming`: whether a layer that is planned brings the chunk of a digest.
    """

    store: Store
    fetcher: Downloader
    stop: threading.Event
    limits: Limits
    budget: ImageBudget
    files: Files | None = None
    may_take: bool = True
    may_grow: bool = True
    is_thrifty: bool = False
    is_idle: Callable[[Descriptor], bool] = lambda _: False
    skip: Callable[[Descriptor, int], str | None] = lambda *_: None
    early_runs: Callable[[Descriptor, list[ByteRange]], list[tuple[ByteRange, ...]]] | None = None
    is_indexed: Callable[[], bool] = lambda: True
    is_coming: Callable[[bytes], bool] = lambda _: False

    def look_into(self, layer: Descriptor, metadata: LayerMetadata, pool: WorkerPool) -> None:
        """Bring TOC and tar-split of a layer that can be pulled in parts; else say why it comes
        whole.
        """
        metadata.is_here = self._adopt(layer)
        metadata.here_before = total(self.store.covered(layer.digest))
        if self.store.is_whole(layer.digest):
            metadata.is_here = True
        elif self.is_idle(layer) and not (metadata.here_before and self._has_table(layer)):
            metadata.reason = NOTHING_HERE if kind_of(layer) != "plain" else _why_plain(layer, self.limits)
        else:
            try:
                self._fetch_tables(layer, self._locate(layer), metadata, pool)
            except UnsupportedLayerError as error:
                metadata.contents, metadata.reason = None, str(error)
            except RangeIgnoredError:
                if self._may_grow:
                    raise
                metadata.reason = NO_RANGES
            if layer.digest in self.fetcher.without_ranges:
                metadata.reason = NO_RANGES
        metadata.is_complete = True

    @property
    def _may_grow(self) -> bool:
        return self.may_take and self.may_grow

    def _has_table(self, layer: Descriptor) -> bool:
        """Whether an earlier run has brought what tells of its frames; else it was taking the layer
        whole.
        """
        form = format_of(layer)
        try:
            span = form.tail(layer.size) or form.locate(layer, limits=self.limits).toc.span
        except (UnsupportedLayerError, FormatError):
            return True  # to be told why
        return self.store.covers(layer.digest, span)

    def _adopt(self, layer: Descriptor) -> bool:
        """Take it over whole, as a file that is here, where that copies nothing. Its proof is still
        to come.
        """
        if not self.may_take or self.files is None or self.store.covers(layer.digest, _whole(layer)):
            return False
        return self.store.adopt(layer.digest, layer.size, self.files.open_blob(layer))

    def _locate(self, layer: Descriptor) -> Location:
        """Fetches the end of the blob where the annotations do not tell."""
        form, blob = format_of(layer), layer.digest
        least, tail = form.tail(layer.size), form.tail(layer.size, is_thrifty=self.is_thrifty)
        if least is None or tail is None:
            return form.locate(layer, limits=self.limits)
        if not self.store.covers(blob, least):
            left = self.store.missing(blob, [tail])
            order = Order(layer, [(span,) for span in left], [tail], [tail])
            self.fetcher.now(order, may_grow=self.may_take)
        return form.locate(layer, self.store.read(blob, *least), self.limits)

    def _fetch_tables(self, layer: Descriptor, location: Location, metadata: LayerMetadata, pool: WorkerPool) -> None:
        """Read TOC and tar-split, after fetching what of them is missing: in one range, as they are
        neighbours.

        The TOC comes first, and is read as it comes.
        """
        tarsplit, parts = location.tarsplit, location.parts
        tail = location.metadata if self.is_thrifty else ByteRange(location.payload_end, layer.size)
        if tail.size > total(parts) + _MOST_BETWEEN:
            tail = location.metadata
        metadata.coming = merge([tail, *parts])
        for is_last in (False, True):
            reader = self._reader(layer, location, metadata, pool)
            left = self.store.missing(layer.digest, merge([tail, *parts] if not self.is_thrifty else parts))
            if len(left) > 1:
                left = self.store.missing(layer.digest, merge([tail, *parts]))
            wanted = parts if self.is_thrifty else list(metadata.coming)
            order = Order(layer, [(span,) for span in left], wanted, wanted)
            self.fetcher.now(order, may_grow=self._may_grow, came=reader.look, pool=pool)
            try:
                contents = reader.finish()
                if contents is None:
                    metadata.reason = reader.skipped
                    return
                check_tarsplit(self.store, contents)
            except IntegrityError:
                wrong = list(metadata.coming)
                if metadata.contents is not None and tarsplit is not None:
                    wrong = [tarsplit.span]
                gone = self.store.report_corruption(layer.digest, wrong)
                self.fetcher.take_back(order, gone)
                if is_last or not gone:
                    raise
            else:
                return

    def _reader(self, layer: Descriptor, location: Location, metadata: LayerMetadata, pool: WorkerPool) -> TableReader:
        """Of its TOC. Of a long one that an earlier run has brought, chunks are asked for while it
        is read.
        """

        def found(contents: LayerIndex) -> None:
            metadata.contents = contents

        span, early = location.toc.span, None
        if self.early_runs and span.size >= _SHORT_TABLE and is_table_proved(self.store, layer, location):
            terms = EarlyTerms(self.early_runs, self.is_indexed, self.is_coming, self.is_thrifty)
            early = EarlyChunks(self.store, self.fetcher, layer, metadata.begun, terms)
        toc = format_of(layer).toc_reader(layer, location, self.limits, self.budget)
        skip = partial(self.skip, layer, location.toc.span.size)
        return TableReader(self.store, layer, location, toc, pool, self.stop, found, skip, early)


def _why_plain(layer: Descriptor, limits: Limits) -> str:
    """Why a layer has no frames."""
    try:
        format_of(layer).locate(layer, limits=limits)
    except UnsupportedLayerError as error:
        return str(error)
    return NOTHING_HERE


def _whole(layer: Descriptor) -> ByteRange:
    return ByteRange(0, max(layer.size, 1))


def table_rank(layer: Descriptor, limits: Limits) -> int:
    """Layers are planned by rank, those of one rank as the manifest lists them. 0: a TOC that is
    read in no time, or none; each further rank is twice as long.

    A run that is killed while it reads a long table has asked for chunks of other layers by then;
    otherwise such runs would bring nothing, however often.
    """
    try:
        return (format_of(layer).locate(layer, limits=limits).toc.span.size // _SHORT_TABLE).bit_length()
    except (UnsupportedLayerError, FormatError):
        return 0
