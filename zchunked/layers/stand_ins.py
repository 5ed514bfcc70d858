"""Find stored frames that stand in for those of a wanted blob, in other blobs or itself."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain, compress, count, islice, repeat
from operator import and_, gt, itemgetter, ne, not_

from zchunked.formats.frame_map import HEADER, NO_KEY, PAYLOAD, FrameMap
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, Spans, ranges
from zchunked.store import Store
from zchunked.store.index.frame_index import FINGERPRINT_BYTES, FrameRows
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
    """What the store knows of a blob's frames: `places[i]` is where one lies that equals frame i.

    `payloads`: digests of those it has, of whatever length. `strangers`: blobs that another
    encoder wrote.
    """

    places: list[FrameLocation | None]
    payloads: set[bytes] = field(default_factory=set)
    strangers: set[Digest] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class StoredToc:
    """The frames of a stored blob by its TOC, without rows in the index."""

    blob: Digest
    frames: FrameMap


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
    known = KnownFrames([None] * len(frames))
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
    found = _numbers_of(frames.keys, table.frames.keys)
    edges, kinds, its_edges = frames.edges, frames.kinds, table.frames.edges
    if held is not None:
        for frame, its in enumerate(found):
            if its >= 0 and not held.hold(its_edges[its], its_edges[its + 1]):
                found[frame] = -1
    is_same = bytearray(
        its >= 0 and its_edges[its + 1] - its_edges[its] == edges[frame + 1] - edges[frame]
        for frame, its in enumerate(found)
    )
    if not frames.is_joined:
        is_content = [its >= 0 and kind == PAYLOAD for its, kind in zip(found, kinds, strict=True)]
        payloads = set(compress(frames.keys, is_content))
        agree = set(compress(frames.keys, map(and_, is_content, is_same)))
        known.payloads |= payloads
        if len(payloads) - len(agree) > _FEW + len(agree) // _SHARE:
            known.strangers.add(table.blob)
    if table.blob not in known.strangers:
        places = known.places
        for frame in compress(count(), is_same):
            if places[frame] is None:
                places[frame] = (table.blob, its_edges[found[frame]])


def _numbers_of(keys: list[bytes], others: list[bytes]) -> array[int]:
    """For each key, which of the others it is; -1 for none."""
    numbers = dict(zip(others, count(), strict=False))
    numbers.pop(NO_KEY, None)
    return array("q", map(numbers.get, keys, repeat(-1)))


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
        known.places = [had or place for had, place in zip(known.places, places, strict=True)]


def _wanted(known: KnownFrames, frames: FrameMap, kind: int) -> set[Frame]:
    """The keys of frames that are not known yet."""
    its = [
        place is None and one == kind and key != NO_KEY
        for place, one, key in zip(known.places, frames.kinds, frames.keys, strict=True)
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
    places = list(known.places)
    if trust is not Trust.ALL:
        places = [
            None if kind == HEADER else place for kind, place in zip(kinds, places, strict=True)
        ]
    is_held = bytearray(len(frames))
    for number in _held(frames, here):
        places[number], is_held[number] = None, 1
    lacking = [
        number
        for number, (place, kind) in enumerate(zip(places, kinds, strict=True))
        if place is None and kind == PAYLOAD and keys[number]
    ]
    lacking.sort(key=is_held.__getitem__, reverse=True)  # those that are here serve the others
    its = [
        ((keys[number], edges[number + 1] - edges[number]), (blob, edges[number]))
        for number in lacking
    ]
    planned_ones = [planned.setdefault(frame, place) for frame, place in its]
    for number, place, (_, own) in zip(lacking, planned_ones, its, strict=True):
        if place != own and not is_held[number]:
            places[number] = place
    is_chosen = [place is not None for place in places]
    if refused:
        is_chosen = [
            one and start not in refused for one, start in zip(is_chosen, edges, strict=False)
        ]
    chosen = [place for place in compress(places, is_chosen) if place is not None]
    return StandIns(
        array("q", compress(edges, is_chosen)),
        array("q", compress(islice(edges, 1, None), is_chosen)),
        bytearray(compress(kinds, is_chosen)),
        [source for source, _ in chosen],
        array("q", [start for _, start in chosen]),
    )


def _held(frames: FrameMap, here: Spans) -> list[int]:
    """The frames that are here."""
    first = max(bisect_right(frames.edges, here.lowest) - 1, 0)
    starts, ends = frames.edges[first:-1], frames.edges[first + 1 :]
    return list(compress(count(first), here.hold_each(starts, ends)))


def frame_rows(frames: FrameMap, some: slice = slice(None)) -> tuple[FrameRows, FrameRows]:
    """Index rows of a blob's frames, ascending by key: payloads, and frames looked up like headers.

    `some`: the numbers of those that count.
    """
    keys, lengths = frames.keys[some], frames.lengths()[some]
    is_new = [key != NO_KEY for key in keys]
    is_payload = [kind == PAYLOAD and not frames.is_joined for kind in frames.kinds[some]]
    payloads = list(map(and_, is_new, is_payload))
    headers = list(map(gt, is_new, is_payload))
    columns = frames.edges[some], lengths, frames.sizes[some]  # the last is 0 of headers
    its_payloads, its_headers = (
        list(zip(*(compress(column, its) for column in columns), strict=True))
        for its in (payloads, headers)
    )
    return (
        _rows(list(compress(keys, payloads)), its_payloads),
        _rows([key[:FINGERPRINT_BYTES] for key in compress(keys, headers)], its_headers),
    )


def _rows(keys: list[bytes], numbers: list[tuple[int, int, int]]) -> FrameRows:
    """Rows of the first frame of each key: the index takes no second."""
    keys.reverse()
    numbers.reverse()
    by_key = dict(zip(keys, numbers, strict=True))
    ordered = sorted(by_key)
    return ordered, list(map(by_key.__getitem__, ordered))
