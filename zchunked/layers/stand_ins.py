"""Find the frames of a wanted blob that the store has already: in other blobs, or once more in the same one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import compress, repeat

from zchunked.formats.frame_map import HEADER, PAYLOAD, FrameMap
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, Spans, merge, ranges
from zchunked.store import Store
from zchunked.store.frame_index import FINGERPRINT_BYTES, Found, FrameRow

_FEW = 3  # frames of one content and two lengths: a writer that ended files at chunk cuts made them
_SHARE = 16  # so many frames that agree excuse one more that does not


class Trust(IntEnum):
    """Which frames may stand in for others. A wrong blob digest lowers it step by step."""

    NOTHING = 0
    PAYLOADS = 1
    ALL = 2


@dataclass(slots=True)
class StandIns:
    """Frames that need not be fetched, ascending and disjoint, in columns.

    Bytes [starts[i], ends[i]) of the wanted blob are those at `places[i]` of the blob `blobs[i]`, if what `kinds[i]`
    says of frames holds: `PAYLOAD` or `HEADER`.
    """

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    kinds: bytearray = field(default_factory=bytearray)
    blobs: list[Digest] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def spans(self) -> list[ByteRange]:
        return merge(ranges(self.starts, self.ends))

    def sources(self, kind: int, but: Digest) -> set[Digest]:
        """The blobs that frames of a kind are taken from, one aside."""
        return {blob for blob, its in zip(self.blobs, self.kinds, strict=True) if its == kind} - {but}


Frame = tuple[bytes, int]
"""Key and compressed length."""
Place = tuple[Digest, int]
"""Blob, and where in it the frame starts."""


@dataclass(slots=True)
class KnownFrames:
    """What the store says of a blob's frames. `contents`: digests of payloads it has, of whatever length.

    `strangers`: blobs that another encoder wrote.
    """

    payloads: dict[Frame, Place] = field(default_factory=dict)
    headers: dict[Frame, Place] = field(default_factory=dict)
    contents: set[bytes] = field(default_factory=set)
    strangers: set[Digest] = field(default_factory=set)


def find_frames(store: Store, blob: Digest, frames: FrameMap, own: Collection[Digest] = ()) -> KnownFrames:
    """Look all frames of a blob up. `own`: blobs that are not asked, as somebody else answers for them."""
    known = KnownFrames(strangers={Digest(other) for other in store.frames.strangers_of(blob)})
    rows = _Rows(store, {blob, *own})
    wanted = _wanted(frames, PAYLOAD)
    if frames.is_joined:  # the key is of a frame, not of its content alone
        known.payloads = _agreeing(rows.headers(wanted), wanted, known.strangers)
    else:
        found = rows.payloads(wanted)
        known.contents = {key for key, _, _, _ in found}
        known.strangers |= _strangers(found, wanted)
        known.payloads = _agreeing(found, wanted, known.strangers)
    wanted = _wanted(frames, HEADER)
    known.headers = _agreeing(rows.headers(wanted), wanted, known.strangers)
    return known


def _wanted(frames: FrameMap, kind: int) -> set[Frame]:
    its = map(kind.__eq__, frames.kinds)
    return {frame for frame in compress(zip(frames.keys, frames.lengths(), strict=True), its) if frame[0]}


_Row = tuple[bytes, int, Digest, int]
"""Key, start, blob, compressed length."""


class _Rows:
    """Rows of the index, as far as their bytes are here."""

    def __init__(self, store: Store, but: Collection[Digest]) -> None:
        self._store, self._but = store, but
        self._blobs: dict[int, tuple[Digest, Spans | None]] = {}  # nothing to look at in one that is whole

    def payloads(self, wanted: set[Frame]) -> list[_Row]:
        ordered = sorted({key for key, _ in wanted})
        return self._held(ordered, self._store.frames.find_payloads(ordered))

    def headers(self, wanted: set[Frame]) -> list[_Row]:
        ordered = sorted({key for key, _ in wanted})
        return self._held(ordered, self._store.frames.find_headers([key[:FINGERPRINT_BYTES] for key in ordered]))

    def _held(self, keys: list[bytes], found: Iterator[Found]) -> list[_Row]:
        rows: list[_Row] = []
        blobs = self._blobs
        for which, numbers, starts, lengths in found:
            here = set(numbers)
            for number in here - blobs.keys():
                blobs[number] = self._blob(number)
            named = [keys[one] for one in which]
            if len(here) == 1 and blobs[numbers[0]][1] is None:  # as often as not
                rows += zip(named, starts, repeat(blobs[numbers[0]][0]), lengths, strict=False)
                continue
            for key, number, start, length in zip(named, numbers, starts, lengths, strict=True):
                blob, spans = blobs[number]
                if spans is None or spans.hold(start, start + length):
                    rows.append((key, start, blob, length))
        return rows

    def _blob(self, number: int) -> tuple[Digest, Spans | None]:
        blob = self._store.blob_of(number)
        if blob in self._but:
            return blob, Spans([])
        return blob, None if self._store.is_whole(blob) else Spans(self._store.covered(blob))


def _strangers(found: list[_Row], wanted: set[Frame]) -> set[Digest]:
    """Blobs of which more than a few frames have the content, and not the length."""
    agree: Counter[Digest] = Counter()
    differ: Counter[Digest] = Counter()
    for key, _, blob, length in found:
        (agree if (key, length) in wanted else differ)[blob] += 1
    return {blob for blob, count in differ.items() if count > _FEW + agree[blob] // _SHARE}


def _agreeing(found: list[_Row], wanted: set[Frame], but: set[Digest]) -> dict[Frame, Place]:
    return {
        (key, length): (blob, start)
        for key, start, blob, length in found
        if (key, length) in wanted and blob not in but
    }


def choose_stand_ins(
    blob: Digest,
    frames: FrameMap,
    known: KnownFrames,
    coming: dict[Frame, Place],
    here: Spans,
    trust: Trust = Trust.ALL,
    refused: Collection[int] = (),
) -> StandIns:
    """For each frame that is not here, the one that stands in for it, if there is one and it is trusted.

    `coming`: payload frames that other layers of the same pull fetch. What this one will fetch is added.
    `refused`: starts of frames for which none shall.
    """
    if trust is Trust.NOTHING:
        return StandIns()
    edges, kinds = frames.edges, frames.kinds
    lookup = known.payloads | known.headers if trust is Trust.ALL else known.payloads
    wanted = list(zip(frames.keys, frames.lengths(), strict=True))
    places = list(map(lookup.get, wanted))
    low = here.lowest
    for number, (place, kind, frame) in enumerate(zip(places, kinds, wanted, strict=True)):
        if edges[number + 1] > low and here.hold(edges[number], edges[number + 1]):
            places[number] = None
            if kind == PAYLOAD and frame[0]:
                coming.setdefault(frame, (blob, edges[number]))
        elif place is None and kind == PAYLOAD and frame[0]:
            places[number] = coming.get(frame)
            coming.setdefault(frame, (blob, edges[number]))
    chosen = [number for number, place in enumerate(places) if place is not None]
    if refused:
        chosen = [number for number in chosen if edges[number] not in refused]
    its = [place for number in chosen if (place := places[number]) is not None]
    return StandIns(
        [edges[number] for number in chosen],
        [edges[number + 1] for number in chosen],
        bytearray([kinds[number] for number in chosen]),
        [source for source, _ in its],
        [start for _, start in its],
    )


def frame_rows(frames: FrameMap, but: KnownFrames | None = None) -> tuple[list[FrameRow], list[FrameRow]]:
    """What is entered of a blob's frames, ascending by key: payloads, and what is looked up as headers are.

    `but`: frames that the store knows elsewhere.
    """
    had = but or KnownFrames()
    known = had.payloads | had.headers
    payloads: dict[Frame, FrameRow] = {}
    headers: dict[Frame, FrameRow] = {}
    joined = frames.is_joined
    rows = zip(frames.keys, frames.lengths(), frames.edges, frames.kinds, frames.sizes, strict=False)
    for key, length, start, kind, size in rows:
        frame = key, length
        if not key or frame in known:
            continue
        if kind == PAYLOAD and not joined:
            if frame not in payloads:
                payloads[frame] = key, start, length, size
        elif frame not in headers:
            headers[frame] = key[:FINGERPRINT_BYTES], start, length, 0
    return sorted(payloads.values()), sorted(headers.values())
