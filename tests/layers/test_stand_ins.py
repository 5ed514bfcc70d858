"""Which frames stand in for others, against the same said one frame at a time."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from zchunked.formats.frames.frame_map import HEADER, NO_KEY, PAYLOAD, TAIL, FrameMap
from zchunked.layers.stand_ins import (
    Frame,
    FrameLocation,
    KnownFrames,
    Trust,
    choose_stand_ins,
)
from zchunked.layers.stored_toc import frame_rows
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, Spans, merge
from zchunked.store.index.frame_index import FINGERPRINT_BYTES

BLOB, OTHER = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
FRAMES = st.lists(
    st.tuples(st.sampled_from([PAYLOAD, HEADER]), st.integers(0, 6), st.integers(1, 3)),
    min_size=1,
    max_size=30,
)


def key_of(kind: int, number: int) -> bytes:
    return bytes([kind + 1, number]) * 16 if number else NO_KEY


def made(frames: list[tuple[int, int, int]]) -> FrameMap:
    edges = array("q", [0])
    for _, _, length in frames:
        edges.append(edges[-1] + length)
    edges.append(edges[-1] + 5)
    kinds = bytearray([*(kind for kind, _, _ in frames), TAIL])
    keys = [*(key_of(kind, number) for kind, number, _ in frames), NO_KEY]
    sizes = array("q", [*(9 if kind == PAYLOAD else 0 for kind, _, _ in frames), 0])
    return FrameMap(edges, kinds, keys, array("q", [-1] * len(kinds)), sizes, is_joined=False)


def places_of(rows: set[tuple[int, int, int]]) -> dict[Frame, FrameLocation]:
    return {
        (key_of(kind, number), length): (OTHER, 100 * at)
        for at, (kind, number, length) in enumerate(sorted(rows))
    }


def known_of(frames: FrameMap, places: dict[Frame, FrameLocation]) -> KnownFrames:
    known = KnownFrames.none_of(frames)
    for frame, one in enumerate(zip(frames.keys, frames.lengths(), strict=True)):
        if one in places:
            known.blobs[frame], known.starts[frame] = places[one]
    return known


@given(
    FRAMES,
    st.sets(st.tuples(st.sampled_from([PAYLOAD, HEADER]), st.integers(1, 6), st.integers(1, 3))),
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 9)), max_size=5),
    st.sampled_from([Trust.PAYLOADS, Trust.ALL]),
    st.sets(st.integers(0, 60), max_size=3),
)
def test_a_frame_that_is_not_here_is_taken_from_where_it_is(
    frames: list[tuple[int, int, int]],
    rows: set[tuple[int, int, int]],
    spans: list[tuple[int, int]],
    trust: Trust,
    refused: set[int],
) -> None:
    its, stored = made(frames), places_of(rows)
    known = known_of(its, stored)
    here = Spans(merge([ByteRange(at, at + size) for at, size in spans]))
    expected: dict[int, FrameLocation] = {}
    fetched: dict[Frame, FrameLocation] = {}
    for number, kind in enumerate(its.kinds):
        start, end = its.edges[number], its.edges[number + 1]
        frame = its.keys[number], end - start
        if here.hold(start, end) and kind == PAYLOAD and frame[0]:
            fetched.setdefault(frame, (BLOB, start))
    for number, kind in enumerate(its.kinds):
        start, end = its.edges[number], its.edges[number + 1]
        frame = its.keys[number], end - start
        place = stored.get(frame) if trust is Trust.ALL or kind == PAYLOAD else None
        if here.hold(start, end):
            continue
        if place is None and kind == PAYLOAD and frame[0]:
            place = fetched.setdefault(frame, (BLOB, start))
        if place is not None and place != (BLOB, start) and start not in refused:
            expected[start] = place
    found = choose_stand_ins(BLOB, its, known, {}, here, trust, refused)
    assert (
        dict(zip(found.starts, zip(found.blobs, found.places, strict=True), strict=True))
        == expected
    )
    assert found.spans() == merge(
        [ByteRange(*span) for span in zip(found.starts, found.ends, strict=True)]
    )


@given(FRAMES)
def test_rows_are_the_first_frame_of_each_key(frames: list[tuple[int, int, int]]) -> None:
    its = made(frames)
    first: dict[tuple[int, bytes], tuple[int, int]] = {}
    for number, (kind, key) in enumerate(zip(its.kinds, its.keys, strict=True)):
        length = its.edges[number + 1] - its.edges[number]
        if key:
            first.setdefault(
                (kind, key if kind == PAYLOAD else key[:FINGERPRINT_BYTES]),
                (its.edges[number], length),
            )
    for kind, (keys, numbers) in zip((PAYLOAD, HEADER), frame_rows(its), strict=True):
        assert keys == sorted(keys)
        rows_of = {
            (kind, key): (start, length)
            for key, (start, length, _) in zip(keys, numbers, strict=True)
        }
        assert rows_of == {name: place for name, place in first.items() if name[0] == kind}
