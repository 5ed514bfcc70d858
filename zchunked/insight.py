"""What a layer's blob holds, found out before anything is planned: table of contents and tar-split, or why neither."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from zchunked.contents import Contents, read_contents, read_toc
from zchunked.crew import Crew
from zchunked.errors import IntegrityError, RangeIgnoredError, UnsupportedLayerError, ZPullError
from zchunked.fetch import Fetcher, Milestone, Order
from zchunked.layer.locate import Location, locate
from zchunked.layer.plan import missing
from zchunked.layer.toc import Toc
from zchunked.limits import Limits
from zchunked.oci import Descriptor
from zchunked.ranges import ByteRange, merge, total
from zchunked.receipt import Accounts
from zchunked.retry import Stopped
from zchunked.seams import Files
from zchunked.store import Store

_NO_RANGES = "its host serves no ranges"


@dataclass(slots=True, eq=False)
class Insight:
    """What a layer's blob holds, or why it comes whole. `here_before`: bytes of it that were here."""

    here_before: int = 0
    contents: Contents | None = None
    reason: str | None = None
    is_here: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Inspector:
    """Looks into layers, each on a worker of the fetch lane. `files`: the source's blobs, where they are files here.

    `may_take`: whether a blob may be taken whole at once, where that is free or the host leaves no choice.
    """

    store: Store
    fetcher: Fetcher
    accounts: Accounts
    stop: threading.Event
    limits: Limits
    files: Files | None = None
    may_take: bool = True

    def look_into(self, layer: Descriptor, crew: Crew) -> Insight:
        """Bring TOC and tar-split of a layer that can be pulled in parts; else say why it comes whole."""
        is_adopted = self._adopt(layer)
        insight = Insight(here_before=total(self.store.covered(layer.digest)), is_here=is_adopted)
        if self.store.is_whole(layer.digest):
            insight.is_here = True
            return insight
        try:
            insight.contents = self._contents(layer, locate(layer, self.limits), crew)
        except UnsupportedLayerError as error:
            insight.reason = str(error)
        except RangeIgnoredError:
            if self.may_take:
                raise
            insight.reason = _NO_RANGES
        if layer.digest in self.fetcher.without_ranges:
            insight.reason = _NO_RANGES
        return insight

    def _adopt(self, layer: Descriptor) -> bool:
        """Take it over whole, as a file that is here, where that copies nothing. Its proof is still to come."""
        if not self.may_take or self.files is None or self.store.covers(layer.digest, _whole(layer)):
            return False
        return self.store.adopt(layer.digest, layer.size, self.files.open_blob(layer))

    def _contents(self, layer: Descriptor, location: Location, crew: Crew) -> Contents:
        """Read TOC and tar-split, after fetching what of them is missing: in one range, as they are neighbours.

        The TOC comes first, and is read while the tar-split is still on its way.
        """
        together, toc = location.metadata, location.toc.span
        parts = [toc, *([location.tarsplit.span] if location.tarsplit else [])]
        ahead = _Ahead(lambda: read_toc(self.store, layer, location, self.limits), self.stop)
        for is_last in (False, True):
            covered = self.store.covered(layer.digest)
            left = missing(parts, covered)
            if len(left) > 1:
                left = missing([together, *parts], covered)
            order = Order(layer, [(span,) for span in left], parts, parts)
            first = None if is_last else Milestone(toc, lambda: ahead.start(crew))
            self.fetcher.now(order, may_grow=self.may_take, first=first)
            try:
                return read_contents(self.store, layer, self.limits, None if is_last else ahead.result())
            except IntegrityError:
                self.store.evict(layer.digest, [together, *parts])
                self.accounts.discard(layer.digest)
                self.fetcher.distrust(layer.digest, merge([together, *parts]))
                if is_last:
                    raise
        raise AssertionError("unreachable")


def _whole(layer: Descriptor) -> ByteRange:
    return ByteRange(0, max(layer.size, 1))


class _Ahead:
    """A TOC that is read by another worker, as soon as somebody starts that."""

    def __init__(self, read: Callable[[], Toc], stop: threading.Event) -> None:
        self._read, self._stop = read, stop
        self._has_started = False
        self._done = threading.Event()
        self._toc: Toc | None = None
        self._error: ZPullError | None = None

    def start(self, crew: Crew) -> None:
        self._has_started = True
        crew.submit("prove", self._run)

    def _run(self) -> None:
        try:
            self._toc = self._read()
        except ZPullError as error:
            self._error = error
        finally:
            self._done.set()

    def result(self) -> Toc | None:
        """None where nobody started it. Raises what reading it raised, and Stopped when the pull has ended."""
        while self._has_started and not self._done.wait(0.2):
            if self._stop.is_set():
                raise Stopped
        if self._error is not None:
            raise self._error
        return self._toc
