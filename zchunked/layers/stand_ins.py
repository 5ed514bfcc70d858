"""Find stored frames that stand in for those of a wanted blob, in other blobs or itself."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain, compress, count, islice
from operator import and_, gt, itemgetter, ne, not_
from typing import Self

from zchunked.formats.frames.frame_map import HEADER, NO_KEY, PAYLOAD, FrameMap
from zchunked.layers.stored_toc import StoredToc
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, Spans, ranges
from zchunked.store import Store
from zchunked.store.index.frame_index import FINGERPRINT_BYTES
from zchunked.store.index.frame_index import Found as Row

_FEW = 3  # frames of one content and two lengths: a writer that ended files at chunk cuts made them
_SHARE = 16  # so many frames that agree excuse one more that does not


class Trust(IntEnum):
    """Which frames may stand in for others. A wrong blob digest lowers it step by step."""

    NOTHING = 0
    PAYLOADS = 1
    ALL = 2


def _numbers() -> array[int]:
    """A column of none yet: eight bytes each, where a list takes forty."""
    return array("q")


@dataclass(slots=True)
class StandIns:
    """Frames that need not be fetched, ascending and disjoint, in columns.

    Bytes [starts[i], ends[i]) of the wanted blob are those at `places[i]` of the blob `blobs[i]`,
    if what `kinds[i]` says of frames holds: `PAYLOAD` or `HEADER`.
    """

    starts: array[int] = field(default_factory=_numbers)
    ends: array[int] = field(default_factory=_numbers)
    kinds: bytearray = field(default_factory=bytearray)
    blobs: list[Digest] = field(default_factory=list)
    places: array[int] = field(default_factory=_numbers)

    def spans(self) -> list[ByteRange]:
        """Neighbours made one."""
        if not self.starts:
            return []
        is_apart = list(map(ne, self.ends, islice(self.starts, 1, None)))
        firsts = compress(islice(self.starts, 1, None), is_apart)
        return ranges(
            chain(self.starts[:1], firsts), chain(compress(self.ends, is_apart), self.ends[-1:])
        )

    def sources(self, kind: int, but: Digest) -> set[Digest]:
        """The blobs that frames of a kind are taken from, one aside."""
        return {blob for blob, its in zip(self.blobs, self.kinds, strict=True) if its == kind} - {
            but
        }


Frame = tuple[bytes, int]
"""Key and compressed length."""
FrameLocation = tuple[Digest, int]
"""Blob, and where in it the frame starts."""


@dataclass(slots=True)
class KnownFrames:
    """What the store knows of a blob's frames, in columns.

    One that equals frame i lies at `starts[i]` of `blobs[i]`; None: there is none. `payloads`:
    digests of those it has, of whatever length. `strangers`: blobs that another encoder wrote.
    """

    blobs: list[Digest | None]
    starts: array[int]
    payloads: set[bytes] = field(default_factory=set)
    strangers: set[Digest] = field(default_factory=set)

    @classmethod
    def none_of(cls, frames: FrameMap) -> Self:
        return cls([None] * len(frames), array("q", bytes(8 * len(frames))))


def find_frames(
    store: Store,
    blob: Digest,
    frames: FrameMap,
    own: Collection[Digest] = (),
    tables: Iterable[StoredToc] = (),
) -> KnownFrames:
    """Look all frames of a blob up: in tables, and the rest in the index.

    `own`: blobs that are not asked, as the planner answers for them.
    """
    known = KnownFrames.none_of(frames)
    known.strangers = {Digest(other) for other in store.frames.strangers_of(blob)}
    rows = _Rows(store, {blob, *own})
    for table in tables:
        if table.blob not in rows.but:
            _find_in_table(known, frames, table, rows.held_of(table.blob))
    if store.frames.holds_rows():
        _find_in_rows(known, frames, rows)
    return known


def _find_in_table(
    known: KnownFrames, frames: FrameMap, table: StoredToc, held: Spans | None
) -> None:
    """Columns are joined with columns: 200,000 frames take 0.08 s, as rows of the index 1.2 s."""
    found = table.numbers_of(frames.keys)
    edges, kinds, its_edges = frames.edges, frames.kinds, table.edges
    if held is not None:
        for frame, its in enumerate(found):
            if its >= 0 and not held.hold(its_edges[its], its_edges[its + 1]):
                found[frame] = -1
    is_same = bytearray(
        [
            its >= 0 and its_edges[its + 1] - its_edges[its] == end - start
            for its, start, end in zip(found, edges, islice(edges, 1, None), strict=False)
        ]
    )
    if not frames.is_joined:
        is_content = bytearray(
            its >= 0 and kind == PAYLOAD for its, kind in zip(found, kinds, strict=True)
        )
        payloads = set(compress(frames.keys, is_content))
        differ = set(compress(frames.keys, map(gt, is_content, is_same)))
        differ.difference_update(compress(frames.keys, map(and_, is_content, is_same)))
        agree = len(payloads) - len(differ)
        known.payloads = known.payloads | payloads if known.payloads else payloads
        if len(differ) > _FEW + agree // _SHARE:
            known.strangers.add(table.blob)
    if table.blob not in known.strangers:
        blobs, starts = known.blobs, known.starts
        for frame in compress(count(), is_same):
            if blobs[frame] is None:
                blobs[frame], starts[frame] = table.blob, its_edges[found[frame]]


def _find_in_rows(known: KnownFrames, frames: FrameMap, rows: _Rows) -> None:
    wanted = _wanted(known, frames, PAYLOAD)
    if frames.is_joined:  # the key is of a frame, not of its content alone
        agreeing = rows.headers(wanted).agreeing(wanted, known.strangers)
    else:
        found = rows.payloads(wanted)
        known.payloads |= set(map(itemgetter(0), found.frames))
        known.strangers |= found.strangers(wanted)
        agreeing = found.agreeing(wanted, known.strangers)
    wanted = _wanted(known, frames, HEADER)
    agreeing |= rows.headers(wanted).agreeing(wanted, known.strangers)
    if agreeing:
        places = map(agreeing.get, zip(frames.keys, frames.lengths(), strict=True))
        for frame, place in enumerate(places):
            if place is not None and known.blobs[frame] is None:
                known.blobs[frame], known.starts[frame] = place


def _wanted(known: KnownFrames, frames: FrameMap, kind: int) -> set[Frame]:
    """The keys of frames that are not known yet."""
    its = [
        blob is None and one == kind and key != NO_KEY
        for blob, one, key in zip(known.blobs, frames.kinds, frames.keys, strict=True)
    ]
    return set(compress(zip(frames.keys, frames.lengths(), strict=True), its))


@dataclass(slots=True)
class _Found:
    """Frames that are in the store, in columns: 90,000 rows as tuples would cost 0.1 s more."""

    frames: list[Frame] = field(default_factory=list)
    blobs: list[Digest] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def strangers(self, wanted: set[Frame]) -> set[Digest]:
        """Blobs of which more than a few frames have the content, and not the length."""
        is_same = list(map(wanted.__contains__, self.frames))
        if all(is_same):
            return set()
        agree = Counter(compress(self.blobs, is_same))
        differ = Counter(compress(self.blobs, map(not_, is_same)))
        return {blob for blob, count in differ.items() if count > _FEW + agree[blob] // _SHARE}

    def agreeing(self, wanted: set[Frame], but: set[Digest]) -> dict[Frame, FrameLocation]:
        is_good = map(wanted.__contains__, self.frames)
        if but:
            is_good = map(and_, is_good, [blob not in but for blob in self.blobs])
        return dict(
            compress(
                zip(self.frames, zip(self.blobs, self.starts, strict=True), strict=True), is_good
            )
        )


class _Rows:
    """Rows of the index, as far as their bytes are here."""

    def __init__(self, store: Store, but: Collection[Digest]) -> None:
        self._store, self.but = store, but
        # nothing to look at in one that is whole
        self._blobs: dict[int, tuple[Digest, Spans | None]] = {}

    def payloads(self, wanted: set[Frame]) -> _Found:
        ordered = sorted(set(map(itemgetter(0), wanted)))
        return self._held(ordered, self._store.frames.find_payloads(ordered))

    def headers(self, wanted: set[Frame]) -> _Found:
        ordered = sorted(set(map(itemgetter(0), wanted)))
        return self._held(
            ordered, self._store.frames.find_headers([key[:FINGERPRINT_BYTES] for key in ordered])
        )

    def _held(self, keys: list[bytes], rows: Iterator[Row]) -> _Found:
        found = _Found()
        blobs = self._blobs
        for which, numbers, starts, lengths in rows:
            here = set(numbers)
            for number in here - blobs.keys():
                blobs[number] = self._blob(number)
            frames = zip(map(keys.__getitem__, which), lengths, strict=True)
            if all(blobs[number][1] is None for number in here):  # as often as not
                found.frames += frames
                found.blobs += [blobs[number][0] for number in numbers]
                found.starts += starts
                continue
            for frame, number, start in zip(frames, numbers, starts, strict=True):
                blob, spans = blobs[number]
                if spans is None or spans.hold(start, start + frame[1]):
                    found.frames.append(frame)
                    found.blobs.append(blob)
                    found.starts.append(start)
        return found

    def _blob(self, number: int) -> tuple[Digest, Spans | None]:
        blob = self._store.blob_of(number)
        return blob, Spans([]) if blob in self.but else self.held_of(blob)

    def held_of(self, blob: Digest) -> Spans | None:
        """What of a blob is here; None: all of it."""
        return None if self._store.is_whole(blob) else Spans(self._store.covered(blob))


def choose_stand_ins(
    blob: Digest,
    frames: FrameMap,
    known: KnownFrames,
    planned: dict[Frame, FrameLocation],
    here: Spans,
    trust: Trust = Trust.ALL,
    refused: Collection[int] = (),
) -> StandIns:
    """Choose, for each missing frame, the one that stands in, if one exists and is trusted.

    `planned`: payload frames that other layers of the same pull fetch. What this one will fetch is
    added. `refused`: starts of frames for which none shall.
    """
    if trust is Trust.NOTHING:
        return StandIns()
    edges, kinds, keys = frames.edges, frames.kinds, frames.keys
    blobs, places = list(known.blobs), known.starts[:]
    if trust is not Trust.ALL:
        blobs = [None if kind == HEADER else one for kind, one in zip(kinds, blobs, strict=True)]
    is_held = bytearray(len(frames))
    for number in _held(frames, here):
        blobs[number], is_held[number] = None, 1
    lacking = [
        number
        for number, (one, kind) in enumerate(zip(blobs, kinds, strict=True))
        if one is None and kind == PAYLOAD and keys[number]
    ]
    lacking.sort(key=is_held.__getitem__, reverse=True)  # those that are here serve the others
    for number in lacking:
        own = (blob, edges[number])
        place = planned.setdefault((keys[number], edges[number + 1] - edges[number]), own)
        if place != own and not is_held[number]:
            blobs[number], places[number] = place
    is_chosen = bytearray(one is not None for one in blobs)
    for number in compress(count(), is_chosen) if refused else ():
        is_chosen[number] = edges[number] not in refused
    return StandIns(
        array("q", compress(edges, is_chosen)),
        array("q", compress(islice(edges, 1, None), is_chosen)),
        bytearray(compress(kinds, is_chosen)),
        [one for one in compress(blobs, is_chosen) if one is not None],
        array("q", compress(places, is_chosen)),
    )


def _held(frames: FrameMap, here: Spans) -> list[int]:
    """The frames that are here."""
    first = max(bisect_right(frames.edges, here.lowest) - 1, 0)
    starts, ends = frames.edges[first:-1], frames.edges[first + 1 :]
    return list(compress(count(first), here.hold_each(starts, ends)))
