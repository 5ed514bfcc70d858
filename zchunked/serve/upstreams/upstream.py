"""Ask the upstream registries for an image, a blob, a manifest or a size; count what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TypeVar

from zchunked.errors import NotFoundError
from zchunked.interfaces import Emit, Locating, Source
from zchunked.oci.digest import Digest
from zchunked.oci.reference import Reference, parse_reference
from zchunked.options import GapOptions, Options
from zchunked.pull.objects.fetcher import ObjectFetcher
from zchunked.pull.origin import Origin
from zchunked.pull.pull import Pull
from zchunked.receipt import Receipt
from zchunked.serve.api.streams import Flight
from zchunked.serve.monitoring.metrics import Metrics
from zchunked.store import Store

OpenSource = Callable[[Reference], Origin]
"""Opens a source, which the caller closes."""
_Answer = TypeVar("_Answer")


class Upstream:
    """Methods raise NotFoundError, AccessDeniedError, TransferError, as a pull. Thread-safe."""

    def __init__(
        self, store: Store, open_source: OpenSource, options: Options, metrics: Metrics
    ) -> None:
        self._store, self._open, self._metrics = store, open_source, metrics
        self.options = replace(options, gaps=GapOptions(exact=True), takes_turns=False)
        self.is_over: Callable[[], bool] = lambda: False
        """Whether the server has ended, and all pulls with it."""

    @contextmanager
    def source(self, reference: Reference) -> Iterator[Origin]:
        """The registry, for the length of the block."""
        origin = self._open(reference)
        try:
            with closing(origin):
                yield origin
        finally:
            self._metrics.received(reference.host, origin.traffic)

    def size_of(self, name: str, digest: Digest) -> int:
        """Bytes of a blob, by the registry's word."""

        def ask(source: Source) -> int | None:
            return source.size_of(digest) if isinstance(source, Locating) else None

        size = self.ask(_repository(name), ask)
        if size is None:
            raise NotFoundError(f"{name}: the registry does not say how long {digest} is")
        return size

    def pull_image(
        self,
        name: str,
        image: Digest,
        tag: str | None,
        flight: Flight,
        *,
        only: Digest | None = None,
    ) -> None:
        """Pull all of an image, under the name that clients use; or one layer of it."""
        reference = parse_reference(f"docker://{name}@{image}")
        label = parse_reference(f"docker://{name}:{tag}") if tag else reference
        receipt = Receipt(str(label))
        try:
            with self.source(reference) as opened:
                origin = replace(opened, reference=label, digest=image)
                pull = Pull(
                    origin,
                    self._store,
                    self.options,
                    receipt,
                    self._metrics.counted(reference.host, flight),
                )
                flight.follow(pull.partial_blobs)
                flight.share_karma(pull.chameleon)
                pull.end_when(self.is_over)
                pull.run(only)
        finally:
            self._metrics.was_here(receipt.bytes.cached)

    def fetch_with(
        self, name: str, flight: Flight, work: Callable[[ObjectFetcher], object]
    ) -> None:
        """Fetch blobs of a repository into the store."""
        reference = _repository(name)
        with self._fetcher(
            reference, self.options, self._metrics.counted(reference.host, flight)
        ) as fetcher:
            fetcher.on_wrong = flight.partial_blobs.restart
            flight.share_karma(fetcher.chameleon)
            work(fetcher)

    def ask(self, reference: Reference, question: Callable[[Source], _Answer]) -> _Answer:
        """What the registry says; failures are forgiven as those of a pull are."""
        options = replace(self.options, jobs=1)
        with self._fetcher(reference, options, lambda _: None) as fetcher:
            return fetcher.ask(question)

    def manifest(self, reference: Reference, patience: float | None = None) -> bytes:
        """What the reference names, into the store and as it is.

        `patience`: seconds, where the options' own is longer than that.
        """
        options = replace(self.options, jobs=1)
        if patience is not None:
            most = min(patience, options.patience.patience)
            options = replace(options, patience=replace(options.patience, patience=most))
        with self._fetcher(reference, options, lambda _: None) as fetcher:
            return fetcher.manifest(None)

    @contextmanager
    def _fetcher(
        self, reference: Reference, options: Options, show: Emit
    ) -> Iterator[ObjectFetcher]:
        with (
            self.source(reference) as origin,
            ObjectFetcher(origin, self._store, options, show) as fetcher,
        ):
            fetcher.end_when(self.is_over)
            yield fetcher


def _repository(name: str) -> Reference:
    return parse_reference(f"docker://{name}")
