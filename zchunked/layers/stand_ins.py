"""Find the frames of a wanted blob that the store has already: in other blobs, or once more in the same one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

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

    def add(self, start: int, end: int, kind: int, blob: Digest, place: int) -> None:
        self.starts.append(start)
        self.ends.append(end)
        self.kinds.append(kind)
        self.blobs.append(blob)
        self.places.append(place)

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
    lengths = frames.lengths()
    rows = _Rows(store, {blob, *own})
    numbers = _with_keys(frames, PAYLOAD)
    wanted: dict[bytes, set[int]] = {}
    for number in numbers:
        wanted.setdefault(frames.keys[number], set()).add(lengths[number])
    if frames.is_joined:  # the key is of a frame, not of its content alone
        known.payloads = _agreeing(rows.headers(wanted), wanted, known.strangers)
    else:
        found = list(rows.payloads(wanted))
        known.contents = {key for key, _, _, _ in found}
        known.strangers |= _strangers(found, wanted)
        known.payloads = _agreeing(found, wanted, known.strangers)
    wanted = {}
    for number in _with_keys(frames, HEADER):
        wanted.setdefault(frames.keys[number], set()).add(lengths[number])
    known.headers = _agreeing(rows.headers(wanted), wanted, known.strangers)
    return known


def _with_keys(frames: FrameMap, kind: int) -> list[int]:
    keys = frames.keys
    return [number for number, its in enumerate(frames.kinds) if its == kind and keys[number]]


_Row = tuple[bytes, int, Digest, int]
"""Key, start, blob, compressed length."""


class _Rows:
    """Rows of the index, as far as their bytes are here."""

    def __init__(self, store: Store, but: Collection[Digest]) -> None:
        self._store, self._but = store, but
        self._blobs: dict[int, tuple[Digest, Spans | None]] = {}  # nothing to look at in one that is whole

    def payloads(self, keys: Collection[bytes]) -> Iterator[_Row]:
        ordered = sorted(keys)
        return self._held(ordered, self._store.frames.find_payloads(ordered))

    def headers(self, keys: Collection[bytes]) -> Iterator[_Row]:
        ordered = sorted(keys)
        return self._held(ordered, self._store.frames.find_headers([key[:FINGERPRINT_BYTES] for key in ordered]))

    def _held(self, keys: list[bytes], found: Iterator[Found]) -> Iterator[_Row]:
        blobs = self._blobs
        for which, numbers, starts, lengths in found:
            for number in set(numbers) - blobs.keys():
                blobs[number] = self._blob(number)
            for one, number, start, length in zip(which, numbers, starts, lengths, strict=True):
                blob, here = blobs[number]
                if here is None or here.hold(start, start + length):
                    yield keys[one], start, blob, length

    def _blob(self, number: int) -> tuple[Digest, Spans | None]:
        blob = self._store.blob_of(number)
        if blob in self._but:
            return blob, Spans([])
        return blob, None if self._store.is_whole(blob) else Spans(self._store.covered(blob))


def _strangers(found: list[_Row], wanted: dict[bytes, set[int]]) -> set[Digest]:
    """Blobs of which more than a few frames have the content, and not the length."""
    agree: Counter[Digest] = Counter()
    differ: Counter[Digest] = Counter()
    for key, _, blob, length in found:
        (agree if length in wanted[key] else differ)[blob] += 1
    return {blob for blob, count in differ.items() if count > _FEW + agree[blob] // _SHARE}


def _agreeing(
    found: Iterator[_Row] | list[_Row], wanted: dict[bytes, set[int]], but: set[Digest]
) -> dict[Frame, Place]:
    return {
        (key, length): (blob, start) for key, start, blob, length in found if length in wanted[key] and blob not in but
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
    chosen = StandIns()
    if trust is Trust.NOTHING:
        return chosen
    edges, keys = frames.edges, frames.keys
    payloads, headers = known.payloads, known.headers if trust is Trust.ALL else {}
    is_empty = not here
    for number, kind in enumerate(frames.kinds):
        key = keys[number]
        if not key:
            continue
        start, end = edges[number], edges[number + 1]
        frame = key, end - start
        place = headers.get(frame) if kind == HEADER else payloads.get(frame) or coming.get(frame)
        if not is_empty and here.hold(start, end):
            if kind == PAYLOAD:
                coming.setdefault(frame, (blob, start))
        elif place is not None and start not in refused:
            chosen.add(start, end, kind, *place)
        elif kind == PAYLOAD:
            coming[frame] = blob, start
    return chosen


def frame_rows(frames: FrameMap, but: KnownFrames | None = None) -> tuple[list[FrameRow], list[FrameRow]]:
    """What is entered of a blob's frames, ascending by key: payloads, and what is looked up as headers are.

    `but`: frames that the store knows elsewhere.
    """
    payloads: dict[Frame, FrameRow] = {}
    headers: dict[Frame, FrameRow] = {}
    edges, keys, joined = frames.edges, frames.keys, frames.is_joined
    had = but or KnownFrames()
    for number, kind in enumerate(frames.kinds):
        if key := keys[number]:
            start = edges[number]
            frame = key, edges[number + 1] - start
            if frame in (had.payloads if kind == PAYLOAD else had.headers):
                continue
            if kind == PAYLOAD and not joined:
                payloads.setdefault(frame, (key, start, frame[1], frames.sizes[number]))
            else:
                headers.setdefault(frame, (key[:FINGERPRINT_BYTES], start, frame[1], 0))
    return sorted(payloads.values()), sorted(headers.values())
