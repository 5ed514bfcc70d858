"""Mirrors: several registries as one source, the primary last; after a failure the next goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec import structs

from zchunked.errors import (
    MultiRangeRefusedError,
    NotFoundError,
    RangeIgnoredError,
    TransferError,
    TransientError,
    ZPullError,
)
from zchunked.events import Noted
from zchunked.interfaces import (
    Announcing,
    Document,
    Emit,
    Listed,
    Listing,
    Locating,
    Pieces,
    Source,
)
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange, append_pieces, merge, subtract
from zchunked.sources.http.errors.network_errors import HostTimeoutError, NoAnswerError

_Answer = TypeVar("_Answer")
_MOST_STRIKES = 3
# as in a retried read: an honest host teaches how many spans it takes in far fewer
_MOST_LESSONS = 20


@dataclass(slots=True, eq=False)
class Member:
    """One registry and what this pull has seen of it. Only mirrors are ever dropped."""

    name: str
    source: Source
    is_mirror: bool = True
    is_alive: bool = field(default=False, init=False)
    """It has served something in this pull."""
    is_demoted: bool = field(default=False, init=False)
    """Unreachable, or it failed too often: asked after all others."""
    is_dropped: bool = field(default=False, init=False)
    """It refused us or it lied."""
    strikes: int = field(default=0, init=False)
    """Failures in a row without a byte."""
    lies: int = field(default=0, init=False)
    lacks: set[Digest | None] = field(default_factory=set, init=False)
    damaged_here: set[Digest | None] = field(default_factory=set, init=False)
    """Digests that arrived wrong from the primary."""
    served: dict[Digest | None, list[ByteRange]] = field(default_factory=dict, init=False)


@dataclass(frozen=True, slots=True)
class _Failure:
    member: Member
    error: ZPullError
    is_news: bool
    """This very failure set the mirror aside."""


class MirroredSource:
    """Tries each registry once, at once. Raises only when all have failed. Thread-safe.

    404 counts for that blob or document alone, no answer until all else fails, a refusal or a lie
    for the whole pull.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        """The last one is the primary: whatever it answers decides, where no mirror can help."""
        self._members = list(members)
        self._primary = self._members[-1]
        self._lock = threading.Lock()
        self._emit: Emit = lambda _: None

    def close(self) -> None:
        for member in self._members:
            member.source.close()

    def set_listener(self, emit: Emit) -> None:
        self._emit = emit
        for member in self._members:
            if isinstance(member.source, Announcing):
                member.source.set_listener(emit)

    def manifest(self, digest: Digest | None) -> Document:
        failures: list[_Failure] = []
        for member in self._candidates(digest):
            try:
                document = member.source.manifest(digest)
            except ZPullError as error:
                failures.append(self._failed(member, digest, error, has_served=False))
                continue
            self._served(member, digest, [ByteRange(0, max(len(document.data), 1))])
            return document
        raise self._sum(failures) from failures[-1].error

    def listing(self, path: str) -> Listing:
        """The primary's: a mirror need not know of every tag."""
        source = self._primary.source
        if not isinstance(source, Listed):
            raise NotFoundError(f"{self._primary.name} lists nothing")
        return source.listing(path)

    def spans_per_request(self, blob: Descriptor) -> int:
        return self._candidates(blob.digest)[0].source.spans_per_request(blob)

    def read(self, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
        """Read; after a registry breaks, the next one is asked for what is missing.

        One without ranges is none that fails: the blob comes whole from there. So RangeIgnoredError
        may also follow pieces, those of another registry.
        """
        left, failures = list(spans), list[_Failure]()
        for member in self._candidates(blob.digest):
            # Other places than registries come into question only once the last registry has
            # nothing.
            promise = structs.replace(blob, urls=()) if member.is_mirror else blob
            received: list[ByteRange] = []
            failure: ZPullError | None = None
            try:
                for pieces in _in_turns(member.source, promise, left):
                    append_pieces(received, pieces)
                    yield pieces
            except RangeIgnoredError:
                raise
            except ZPullError as error:
                failure = error
            finally:
                self._served(member, blob.digest, received)
            left = subtract(left, merge(received))
            if failure is not None:
                failures.append(
                    self._failed(member, blob.digest, failure, has_served=bool(received))
                )
            if not left:
                return
        raise self._sum(failures) from failures[-1].error

    def size_of(self, digest: Digest) -> int | None:
        """As `Locating.size_of`."""
        return self._first_known(digest, lambda source: source.size_of(digest))

    def locate(self, digest: Digest) -> str:
        return self._first_known(digest, lambda source: source.locate(digest))

    def _first_known(self, digest: Digest, ask: Callable[[Locating], _Answer]) -> _Answer:
        """The first answer that one of them has."""
        failures: list[_Failure] = []
        for member in self._candidates(digest):
            if isinstance(member.source, Locating):
                try:
                    return ask(member.source)
                except ZPullError as error:
                    failures.append(self._failed(member, digest, error, has_served=False))
        if not failures:
            raise NotFoundError(f"none of the hosts tells where {digest} is")
        raise self._sum(failures) from failures[-1].error

    def report_corruption(
        self, digest: Digest | None, spans: Sequence[ByteRange] | None = None
    ) -> None:
        """Drop the mirrors that sent any of it; the primary is asked again only without others."""
        dropped = []
        with self._lock:
            for member in self._members:
                served = merge(member.served.get(digest, ()))
                left = [] if spans is None else subtract(served, merge(spans))
                if left == served:
                    continue
                member.served[digest] = left
                if not member.is_mirror:
                    member.damaged_here.add(digest)
                    continue
                member.lies += 1
                if not member.is_dropped:
                    dropped.append(member)
                member.is_dropped = True
        for member in dropped:
            self._emit(
                Noted(
                    f"going on without mirror {member.name}: what it sent is not what was promised"
                )
            )

    # ── whom to ask ──

    def _candidates(self, digest: Digest | None) -> list[Member]:
        """Best first; the primary is always among them, and mirrors without hope are not.

        One that never answered is not waited for again as long as another does. A mirror that lied
        once is the very last to be asked, for it may be the line that lies: only where no other has
        ever answered.
        """
        with self._lock:
            has_honest = any(member.is_alive and not member.lies for member in self._members)
            ranked: list[tuple[int, Member]] = []
            for member in self._members:
                if not member.is_mirror:
                    # a site that its mirror alone connects
                    is_mute = member.is_demoted and not member.is_alive
                    rank = 4 if is_mute else 2 if digest in member.damaged_here else 0
                    ranked.append((rank, member))
                elif digest in member.lacks:
                    continue
                elif member.is_dropped:
                    if member.lies == 1 and not has_honest:
                        ranked.append((3, member))
                elif not member.is_demoted:
                    ranked.append((0, member))
                elif member.is_alive or not has_honest:
                    ranked.append((1, member))
            return [member for _, member in sorted(ranked, key=lambda one: one[0])]

    def _served(self, member: Member, digest: Digest | None, received: Sequence[ByteRange]) -> None:
        if received:
            with self._lock:
                member.served.setdefault(digest, []).extend(received)
                member.is_alive, member.is_demoted, member.strikes = True, False, 0

    def _failed(
        self, member: Member, digest: Digest | None, error: ZPullError, *, has_served: bool
    ) -> _Failure:
        is_mute = isinstance(error, (NoAnswerError, HostTimeoutError))
        with self._lock:
            if not member.is_mirror:
                member.is_demoted |= is_mute
                return _Failure(member, error, is_news=False)
            was_of_use = not (member.is_demoted or member.is_dropped)
            if isinstance(error, NotFoundError):
                member.lacks.add(digest)
            elif isinstance(error, TransientError):
                member.strikes += not has_served
                member.is_demoted |= is_mute or member.strikes >= _MOST_STRIKES
            else:
                member.is_dropped = True
            is_news = was_of_use and (member.is_demoted or member.is_dropped)
        if is_news:
            self._emit(Noted(f"going on without mirror {member.name}: {error}"))
        return _Failure(member, error, is_news)

    def _sum(self, failures: list[_Failure]) -> ZPullError:
        """The error for all their failures. A mirror that never served anything causes no wait."""
        error = next(one.error for one in failures if one.member is self._primary)
        rest = [one for one in failures if one.member is not self._primary]
        text = "".join([f"; mirror {one.member.name}: {str(one.error)[:400]}" for one in rest])
        transient_ones = [
            one.error for one in rest if one.member.is_alive or not one.member.is_demoted
        ]
        if isinstance(error, (NoAnswerError, HostTimeoutError)):
            for one in rest:  # all at the same time: that is our own line, not this mirror
                one.member.is_demoted &= not (one.is_news and one.member.is_alive)
        transients = [one for one in (error, *transient_ones) if isinstance(one, TransientError)]
        if transients:
            wishes = [one.retry_after for one in transients]
            stated = [wish for wish in wishes if wish is not None]
            limits_of_tries = [one.most_tries for one in transients]
            few = [most for most in limits_of_tries if most is not None]
            return TransientError(
                f"{error}{text}",
                retry_after=min(stated) if len(stated) == len(wishes) else None,
                most_tries=max(few) if len(few) == len(limits_of_tries) else None,
                if_lasting=error.if_lasting if isinstance(error, TransientError) else None,
            )
        return type(error)(f"{error}{text}")


def _in_turns(source: Source, blob: Descriptor, spans: Sequence[ByteRange]) -> Iterator[Pieces]:
    """As many spans at a time as this source takes; the one before it may have taken more."""
    left, lessons = list(spans), 0
    while left:
        received: list[ByteRange] = []
        try:
            for pieces in source.read(blob, left[: max(1, source.spans_per_request(blob))]):
                append_pieces(received, pieces)
                yield pieces
        except MultiRangeRefusedError as error:
            lessons += 1
            if lessons > _MOST_LESSONS:
                raise TransientError(str(error)) from error
            continue
        if not received:
            raise TransferError(f"{blob.digest}: an answer without a byte of what was asked for")
        left = subtract(left, merge(received))
