"""The frame map: a blob tiled by its frames, and keys that promise equal bytes."""

from __future__ import annotations

import json
from datetime import timedelta, timezone
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.reals import Real, reals
from tests.helpers.build.front import Entry, Json, Layer, chunked_layer, every, make_tar
from tests.helpers.build.mutants import brief, json_mutants
from zchunked.errors import FormatError, UnsupportedLayerError
from zchunked.formats.frames import zstd
from zchunked.formats.frames.frame_map import HEADER, NO_KEY, PAYLOAD, TAIL, FrameMap, frame_map
from zchunked.formats.tables.toc import Toc
from zchunked.formats.tables.toc_parser import parse_toc
from zchunked.oci.digest import RAW_SIZE, digest_of, raw

SECOND_WRITER = "g1-old"
"""Another encoder: the same content gives other bytes, of the same length now and then."""


def map_of(real: Real) -> FrameMap:
    return frame_map(real.toc, real.location.payload_end, real.descriptor.size)


def map_of_layer(layer: Layer) -> FrameMap:
    return frame_map(parse_toc(layer.toc_json, toc_at(layer)), toc_at(layer) - 8, layer.size)


def toc_at(layer: Layer) -> int:
    assert layer.toc_at is not None
    return layer.toc_at.offset


def tiles(frames: FrameMap, size: int) -> None:
    assert frames.edges[0] == 0
    assert frames.edges[-1] == size
    assert all(start < end for start, end in pairwise(frames.edges))
    assert (
        len(frames)
        == len(frames.keys)
        == len(frames.chunks)
        == len(frames.sizes)
        == len(frames.edges) - 1
    )
    assert frames.lengths() == [end - start for start, end in pairwise(frames.edges)]
    assert {len(key) for key in frames.keys} <= {0, RAW_SIZE}


def parts(frames: FrameMap, blob: bytes) -> list[tuple[bytes, int, bytes]]:
    """Key, kind and bytes of each frame."""
    return [
        (key, kind, blob[start:end])
        for key, kind, (start, end) in zip(
            frames.keys, frames.kinds, pairwise(frames.edges), strict=True
        )
    ]


@pytest.mark.parametrize("real", reals(), ids=str)
def test_the_frames_of_real_blobs_are_where_the_truth_has_them(real: Real) -> None:
    frames, blob = map_of(real), real.blob
    tiles(frames, len(blob))
    spans = {(chunk["start"], chunk["end"]): chunk for chunk in real.truths["chunks"]}
    at = list(pairwise(frames.edges))
    if real.truths["chunks"]:  # of a sparse file there are none in the tar
        assert [
            span for span, kind in zip(at, frames.kinds, strict=True) if kind == PAYLOAD
        ] == list(spans)
    for (start, end), kind, key, size in zip(
        at, frames.kinds, frames.keys, frames.sizes, strict=True
    ):
        if kind == PAYLOAD and spans:
            assert key == raw(spans[start, end]["digest"])
            assert size == spans[start, end]["usize"]
    tar = b"".join(
        data
        for kind, (start, end) in zip(frames.kinds, at, strict=True)
        if kind != TAIL
        for data in zstd.stream([blob[start:end]])
    )
    assert digest_of(tar) == real.truths.get("decompresses_to", real.truths["diff_id"])


@pytest.mark.parametrize(("old", "new"), list(product(reals(), reals())), ids=str)
def test_equal_keys_and_lengths_are_equal_bytes(old: Real, new: Real) -> None:
    """Of one writer every prediction holds.

    Of two, only payload frames of one length may differ.
    """
    have: dict[tuple[bytes, int], set[bytes]] = {}
    for key, _, data in parts(map_of(old), old.blob):
        have.setdefault((key, len(data)), set()).add(data)
    for key, kind, data in parts(map_of(new), new.blob):
        found = have.get((key, len(data)))
        if key == NO_KEY or found is None:
            continue
        if (old.golden.tag == SECOND_WRITER) == (new.golden.tag == SECOND_WRITER):
            assert found == {data}
        else:
            assert kind == PAYLOAD


def test_an_update_fetches_what_changed_and_no_more() -> None:
    """The figure is what a comparison of all frames, byte by byte, leaves to be fetched."""
    old, new = (
        next(real for real in reals() if real.name == name)
        for name in ("demo:demo-v1-1", "demo:demo-v2-1")
    )
    have = {(key, len(data)) for key, _, data in parts(map_of(old), old.blob)}
    left = [
        data
        for key, _, data in parts(map_of(new), new.blob)
        if not key or (key, len(data)) not in have
    ]
    assert sum(map(len, left)) == 41_317
    assert new.descriptor.size == 232_860


# ── what goes into a header frame ──

BASE = [
    Entry("bin/", type="dir"),
    Entry("bin/one", b"1" * 700, mode=0o755, mtime=5),
    Entry("bin/link", type="symlink", linkname="one"),
    Entry("etc/empty"),
    Entry("etc/two", b"2" * 900),
    Entry("etc/three", b"3" * 1400),
]


def header_keys(*entries: Entry) -> list[bytes]:
    frames = map_of_layer(chunked_layer(make_tar(list(entries)), cut=every(512)))
    return [key for key, kind in zip(frames.keys, frames.kinds, strict=True) if kind == HEADER]


def changed(number: int, **values: object) -> list[Entry]:
    entries = list(BASE)
    kept = {
        "name": entries[number].name,
        "type": entries[number].type,
        "linkname": entries[number].linkname,
    }
    entries[number] = Entry(**({"data": entries[number].data} | kept | values))  # type: ignore[arg-type]
    return entries


def test_content_and_place_are_no_part_of_a_header_frames_key() -> None:
    base = header_keys(*BASE)
    assert len(base) == 4
    assert base[-1] == NO_KEY, "the end of the archive is never predicted"
    assert len(set(base)) == 4
    assert header_keys(*changed(4, data=b"x" * 900)) == base
    assert header_keys(Entry("a", b"a" * 512), *BASE)[2:] == base[1:], "all lie elsewhere"


@pytest.mark.parametrize(("number", "values", "differs"), [
    (0, {"mode": 0o700}, [0]),
    (1, {"mtime": 6}, [0]),
    (1, {"mode": 0o755, "mtime": 5, "data": b"1" * 1212}, [0]),
    (1, {"mode": 0o755, "mtime": 5, "data": b"1" * 701}, [0, 1]),
    (2, {"linkname": "two"}, [1]),
    (3, {"uid": 7}, [1]),
    (3, {"name": "etc/hollow"}, [1]),
    (4, {"xattrs": {"user.digest": b"x", "digest": b"y"}}, [1]),
    (4, {"mtime": "1.5"}, [1]),
    (5, {"gid": 9}, [2]),
])  # fmt: skip
def test_whatever_goes_into_a_header_frame_is_part_of_its_key(
    number: int, values: dict[str, object], differs: list[int]
) -> None:
    pairs = zip(header_keys(*BASE), header_keys(*changed(number, **values)), strict=True)
    assert [at for at, (one, other) in enumerate(pairs) if one != other] == differs


def test_the_builders_zone_is_no_part_of_a_key() -> None:
    entries = [
        *BASE,
        Entry("var/late", b"4", mtime="1700000000.123456789"),
        Entry("end", b"5", mtime=3),
    ]
    keys = map_of_layer(chunked_layer(make_tar(entries))).keys
    assert len(set(keys)) > len(entries)
    for zone in (timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=11))):
        assert map_of_layer(chunked_layer(make_tar(entries), zone=zone)).keys == keys
    entries[-1] = Entry("end", b"5", mtime=4)
    assert map_of_layer(chunked_layer(make_tar(entries))).keys != keys


def test_names_that_end_like_a_time_hide_no_zone() -> None:
    tar = make_tar([Entry(f"{number}Z", b"%d" % number, mtime=3) for number in range(3)])
    zone = timezone(timedelta(hours=5, minutes=45))
    assert map_of_layer(chunked_layer(tar, zone=zone)).keys == map_of_layer(chunked_layer(tar)).keys


def test_a_time_that_is_none_is_left_as_it_is() -> None:
    def edit(toc: Json) -> None:
        toc["entries"][1]["modtime"] = "2023-13-14T22:13:20+05:45"
        toc["entries"][2]["modtime"] = "0001-01-01T00:00:00+05:45"

    tiles(map_of_layer(layer := chunked_layer(make_tar(BASE), edit_toc=edit)), layer.size)


NAMES = st.sampled_from(
    ['a},{"type":"reg","name":"b', '"digest":"', "},{", "a\nb", "é", 'x","digest":"sha256:y', "z"]
)
ENTRIES = st.lists(
    st.builds(
        lambda name, data, kind, xattr, mtime: Entry(
            name,
            data if kind == "reg" else b"",
            type=kind,
            mtime=mtime,
            xattrs={xattr: b"v"} if xattr else {},
        ),
        NAMES,
        st.integers(0, 3000).map(bytes) | st.binary(max_size=600),
        st.sampled_from(["reg", "reg", "dir"]),
        st.sampled_from(["", "digest", "offset", 'a":{},{"type":"']),
        st.integers(0, 1),
    ),
    max_size=6,
    unique_by=lambda entry: entry.name,
)


@given(ENTRIES, ENTRIES)
def test_in_one_writers_blobs_equal_keys_are_equal_content(
    one: list[Entry], two: list[Entry]
) -> None:
    """Names that look like JSON, and all sizes.

    Of every two frames with one key, the bytes are the same.
    """
    seen: dict[bytes, bytes] = {}
    for entries in (one, two):
        layer = chunked_layer(make_tar(entries), cut=every(1000))
        frames = map_of_layer(layer)
        tiles(frames, layer.size)
        for key, _, data in parts(frames, layer.blob):
            if key:
                content = b"".join(zstd.stream([data]))
                assert seen.setdefault(key, content) == content


# ── TOCs that lie ──

GOOD = chunked_layer(make_tar(BASE), cut=every(512))


@given(json_mutants(json.loads(GOOD.toc_json)), st.integers(-3, 2000), st.integers(-3, 4000))
def test_whatever_the_toc_says_a_tiling_or_an_error(
    toc: object, payload_end: int, size: int
) -> None:
    try:
        parsed = parse_toc(json.dumps(toc).encode(), toc_at(GOOD))
        frames = frame_map(parsed, payload_end, size)
    except (FormatError, UnsupportedLayerError) as error:
        brief(error)
    else:
        tiles(frames, size)


def reordered() -> Toc:
    toc = json.loads(GOOD.toc_json)
    toc["entries"].sort(key=lambda entry: entry["name"], reverse=True)
    toc["entries"].sort(key=lambda entry: (entry["name"], entry.get("chunkOffset", 0)))
    return parse_toc(json.dumps(toc).encode(), toc_at(GOOD))


def test_of_a_toc_in_another_order_payloads_are_known_and_headers_are_not() -> None:
    toc, frames = reordered(), map_of_layer(GOOD)
    other = frame_map(toc, toc_at(GOOD) - 8, GOOD.size)
    assert (other.edges, other.kinds, other.sizes) == (frames.edges, frames.kinds, frames.sizes)
    for kind, key, there in zip(frames.kinds, frames.keys, other.keys, strict=True):
        assert there == (key if kind == PAYLOAD else NO_KEY)
    for chunk, key in zip(other.chunks, other.keys, strict=True):
        assert chunk == -1 or toc.digests[chunk] == key


def test_two_files_in_one_range_are_one_frame() -> None:
    toc = json.loads(GOOD.toc_json)
    one, two = (
        next(entry for entry in toc["entries"] if entry["name"] == name)
        for name in ("bin/one", "etc/two")
    )
    for entry in [
        entry for entry in toc["entries"] if entry["name"] == "etc/two" and entry["type"] == "chunk"
    ]:
        toc["entries"].remove(entry)
    chunks = [
        entry for entry in toc["entries"] if entry["name"] == "bin/one" and entry["type"] == "chunk"
    ]
    two.update({key: one[key] for key in one if key not in ("name", "mode", "modtime")})
    at = toc["entries"].index(two) + 1
    toc["entries"][at:at] = [chunk | {"name": "etc/two"} for chunk in chunks]
    frames = frame_map(
        parse_toc(json.dumps(toc).encode(), toc_at(GOOD)), toc_at(GOOD) - 8, GOOD.size
    )
    tiles(frames, GOOD.size)
    assert len(frames) < len(map_of_layer(GOOD))


def test_a_layer_without_payloads_is_one_header_frame_and_the_tail() -> None:
    layer = chunked_layer(make_tar({"etc/": b"", "etc/empty": b""}))
    frames = map_of_layer(layer)
    tiles(frames, layer.size)
    assert bytes(frames.kinds) == bytes((HEADER, TAIL))
    assert frames.keys == [NO_KEY, NO_KEY]


def test_chunks_that_reach_into_the_tail_are_refused() -> None:
    toc = parse_toc(GOOD.toc_json, toc_at(GOOD))
    with pytest.raises(FormatError, match="chunks reach to"):
        frame_map(toc, toc.ends[-1] - 1, GOOD.size)
    with pytest.raises(FormatError):
        frame_map(toc, GOOD.size + 1, GOOD.size)
