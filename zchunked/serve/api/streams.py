"""Stream a blob in order while it arrives; its end only once it is proved."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from zlib import crc32

from zchunked.download.retries.karma import Karma
from zchunked.download.retries.retry import Chameleon
from zchunked.errors import IntegrityError, TransferError, ZPullError
from zchunked.events import Arrived, Event, GaveUp, Planned, Retried
from zchunked.oci.digest import Digest, short, verified
from zchunked.pull.partial_blobs import PartialBlobs
from zchunked.ranges import ByteRange
from zchunked.store import Store

_WINDOW = 8 << 20  # how far ahead of a client the store is asked what is here
_PIECE = 256 << 10  # one write to a client: 63 % of nginx's rate to curl; 150 clients take 100 MiB
_HELD = 64 << 10  # of a blob that is not proved yet: no client gets a whole wrong one
_LOOK_SECONDS = 0.25
_FOLLOW_SECONDS = 0.1  # without a byte, until a reader does not wait for the proof any longer
_CHECK_SECONDS = 600.0  # a stored blob is hashed as it is sent, but not more often
_STARVED_SECONDS = 0.5  # without a byte: perhaps only a proof finds that it has to come again


class Flight:
    """A pull in progress. Takes its events; clients wait for it to go on."""

    def __init__(self, name: str, what: Digest) -> None:
        self.name, self.what, self.began = name, what, time.time()
        self.failure: ZPullError | None = None
        self.is_done = False
        self.total = self.here = self.arrived = 0
        self.note = ""
        self._changed = threading.Condition()
        self._taking = 0  # clients
        self._starved = -math.inf  # when one last began to wait again, too long already
        self.partial_blobs = PartialBlobs()
        self.karma: Karma | None = None
        """That of its host, while it is in the air."""

    @property
    def title(self) -> str:
        """The image for people, its digest cut short."""
        return f"{self.name}@{short(self.what)}"

    def follow(self, partial_blobs: PartialBlobs) -> None:
        """Hand out what this pull puts together. Called before it runs."""
        self.partial_blobs = partial_blobs
        partial_blobs.on_change = self._wake
        partial_blobs.give_way = self._give_way

    def share_karma(self, chameleon: Chameleon) -> None:
        """Have a pull live by it. Called before it runs."""
        if self.karma is not None:
            chameleon.karma = self.karma

    def __call__(self, event: Event) -> None:
        if isinstance(event, Planned):
            self.total, self.here = event.total_bytes, event.here_bytes
        elif isinstance(event, Arrived):
            self.here = min(self.here + event.bytes, self.total)
            self.arrived += event.bytes
        elif isinstance(event, Retried | GaveUp):
            self.note = event.cause
        self._wake()

    def end(self, failure: ZPullError | None) -> None:
        """Everybody who waits for it goes on, or fails with it."""
        self.failure, self.is_done = failure, True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, seconds: float = 0.0) -> None:
        """Return when something has happened, or after a moment.

        `seconds`: for which a client has waited already.
        """
        with self._changed:
            if seconds > _STARVED_SECONDS:
                self._starved = time.monotonic()
            if not self.is_done:
                self._changed.wait(_LOOK_SECONDS)

    def first(self, parts: Iterable[bytes]) -> Generator[bytes]:
        """Pass parts of a blob on; meanwhile nothing is proved.

        podman unpacks parts as it gets them, on every core: beside a proof, an update of 352 MB
        took it 0.8 s longer. When it has them all, it needs but one core.
        """
        with self._changed:
            self._taking += 1
        try:
            yield from parts
        finally:
            with self._changed:
                self._taking -= 1
                self._changed.notify_all()

    def _give_way(self) -> None:
        """Wait while clients take parts, and none of them has waited long for more to come.

        One that has looks for bytes between two waits, and is hungry then too.
        """
        with self._changed:
            while self._taking and not self.is_done:
                if time.monotonic() - self._starved < 2 * _LOOK_SECONDS:
                    break
                self._changed.wait(_LOOK_SECONDS)


class CheckedBlobs:
    """Which stored blobs were hashed lately. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: dict[Digest, float] = {}

    def is_due(self, digest: Digest) -> bool:
        return self._clock() - self._at.get(digest, -math.inf) > _CHECK_SECONDS

    def note(self, digest: Digest) -> None:
        """It is right."""
        self._at[digest] = self._clock()


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that a client wants, and the flight that fetches it; None where it is stored whole.

    `checked`: None for one that its client alone verifies.
    """

    store: Store
    digest: Digest
    size: int
    flight: Flight | None
    checked: CheckedBlobs | None = None

    def stream(self, span: ByteRange, *, is_held: bool) -> Iterator[bytes]:
        """The bytes of a span, in order, as they arrive.

        `is_held`: the last ones only once the blob is proved. Raises what ended the flight, and
        TransferError where bytes that were sent have turned out wrong.
        """
        if self.flight is None:
            is_all = is_held and span.size == self.size
            if is_all and self.checked is not None and self.checked.is_due(self.digest):
                return self._hashed(self.checked)
            return _stored(self.store, self.digest, span)
        return self._as_it_arrives(self.flight, span, is_held=is_held)

    def first(self, parts: Iterable[bytes]) -> Iterable[bytes]:
        """Parts of it, before anything is proved."""
        return parts if self.flight is None else self.flight.first(parts)

    def _as_it_arrives(self, flight: Flight, span: ByteRange, *, is_held: bool) -> Iterator[bytes]:
        at, digest = span.start, self.digest
        held_from = max(self.size - _HELD, 0) if is_held else span.end
        rounds, since, sent = flight.partial_blobs.rounds(digest), time.monotonic(), 0
        while at < span.end:
            is_done = flight.is_done  # read first: what it fetched is seen below
            end = span.end if flight.partial_blobs.is_proved(digest) else min(span.end, held_from)
            if flight.partial_blobs.rounds(digest) != rounds:
                if at > span.start:
                    raise _came_wrong(digest)
                rounds = flight.partial_blobs.rounds(digest)
            waited = time.monotonic() - since
            # in the end it waits for the proof anyway
            follows = is_held and waited < _FOLLOW_SECONDS
            read = flight.partial_blobs.follow if follows else flight.partial_blobs.read
            upto = min(end, at + _PIECE)
            piece = _here(read, self.store, digest, at, upto) if at < end else b""
            at += len(piece)
            if piece:
                sent = crc32(piece, sent)
                yield piece
                since = time.monotonic()
            elif self.store.is_whole(digest):
                # perhaps by another process: then nothing has proved what this flight gave
                if self._sum(span.start, at) != sent:
                    raise _came_wrong(digest)
                yield from _stored(self.store, digest, ByteRange(at, span.end))
                return
            elif is_done:
                raise flight.failure or TransferError(
                    f"blob {digest}: its pull has ended without it"
                )
            else:
                flight.wait(waited)

    def _hashed(self, checked: CheckedBlobs) -> Iterator[bytes]:
        """All of a stored blob, its last piece once the disk has proved not to have damaged it.

        What it has damaged is dropped, so that it is fetched again for the next client.
        """
        held = b""
        pieces = _stored(self.store, self.digest, ByteRange(0, self.size))
        try:
            for piece in verified(pieces, self.digest, self.size, "a stored blob"):
                if held:
                    yield held
                held = bytes(piece)
        except IntegrityError as error:
            from zchunked.maintenance.blob_check import drop_damage  # noqa: PLC0415 - seldom needed

            drop_damage(self.store, self.digest, self.size)
            raise IntegrityError(
                f"blob {self.digest} was damaged on the disk and is dropped; ask for it again"
            ) from error
        checked.note(self.digest)
        yield held

    def _sum(self, start: int, end: int) -> int:
        """The checksum of stored bytes; 7 GB/s."""
        found = 0
        if start < end:
            for piece in _stored(self.store, self.digest, ByteRange(start, end)):
                found = crc32(piece, found)
        return found


def _came_wrong(digest: Digest) -> TransferError:
    return TransferError(f"blob {digest} came wrong and comes again; ask for it again")


_Read = Callable[[Store, Digest, int, int], bytes]


def _here(read: _Read, store: Store, digest: Digest, start: int, end: int) -> bytes:
    try:
        return read(store, digest, start, end)
    except IntegrityError:  # it was just found wrong and dropped: the pull fetches it again
        return b""


def _stored(store: Store, digest: Digest, span: ByteRange) -> Iterator[bytes]:
    at = span.start
    while at < span.end:
        edge = min(span.end, at + _WINDOW)
        gaps = store.missing(digest, [ByteRange(at, edge)])
        if gaps:  # perhaps another process has brought them since the index was read
            store.catch_up()
            gaps = store.missing(digest, [ByteRange(at, edge)])
        edge = gaps[0].start if gaps else edge
        while at < edge:
            upto = min(edge, at + _PIECE)
            piece = store.read(digest, at, upto)
            at = upto
            yield piece
        if gaps:  # damage that was dropped since, or a collection: nothing will fetch it now
            raise IntegrityError(f"blob {digest} is no longer whole in the store; ask for it again")
