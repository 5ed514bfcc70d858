"""eStargz, and zstd:chunked by stargz.

Found, read, tiled and predicted; and whatever a peer makes of them.
"""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.helpers.build.front import LAYER, PREFIX, Entry, Layer, gzip_layer, make_tar
from tests.helpers.build.golden import FIXTURES
from tests.helpers.build.mutants import brief, json_mutants, mutants
from tests.helpers.build.stargz import STARGZ_DIGEST, Compression, footer, stargz_layer
from zchunked.errors import FormatError, IntegrityError, UnsupportedLayerError
from zchunked.formats import estargz
from zchunked.formats.annotations import Location, locate
from zchunked.formats.frames.decompress import unpacked
from zchunked.formats.frames.frame_map import HEADER, NO_KEY, PAYLOAD, TAIL, FrameMap
from zchunked.formats.layer_format import format_of
from zchunked.formats.tables.toc import Toc
from zchunked.limits import Limits
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import Config, Descriptor, Manifest, parse_config, parse_document

MiB = 1 << 20


@dataclass(frozen=True)
class Read:
    """A layer as the code under test sees it."""

    descriptor: Descriptor
    blob: bytes
    location: Location
    toc: Toc
    frames: FrameMap

    def parts(self) -> list[tuple[bytes, int, bytes]]:
        """Key, kind and bytes of each frame."""
        spans = pairwise(self.frames.edges)
        return [
            (key, kind, self.blob[start:end])
            for key, kind, (start, end) in zip(
                self.frames.keys, self.frames.kinds, spans, strict=True
            )
        ]

    def damaged(self, blob: bytes | None = None) -> list[int]:
        numbers = [number for number, kind in enumerate(self.frames.kinds) if kind == PAYLOAD]
        data = [
            (blob or self.blob)[self.frames.edges[one] : self.frames.edges[one + 1]]
            for one in numbers
        ]
        return format_of(self.descriptor).damaged(self.toc, self.frames, numbers, data)


def read(layer: Descriptor, blob: bytes, limits: Limits = Limits(), piece: int = 1000) -> Read:
    """By the interface, as a pull would."""
    form = format_of(layer)
    tail = form.tail(layer.size)
    location = form.locate(layer, blob[tail.start : tail.end] if tail else b"", limits)
    reader = form.toc_reader(layer, location, limits)
    for at in range(*location.toc.span, piece):
        reader.feed(blob[at : min(at + piece, location.toc.span.end)])
    toc = reader.finish()
    return Read(layer, blob, location, toc, form.frame_map(toc, location, layer.size))


def described(layer: Layer, **changes: Any) -> Descriptor:
    found = Descriptor(layer.media_type, Digest(layer.digest), layer.size, layer.annotations)
    return structs.replace(found, **changes)


def read_layer(layer: Layer, **options: Any) -> Read:
    return read(described(layer), layer.blob, **options)


def tiles(frames: FrameMap, size: int) -> None:
    assert frames.edges[0] == 0
    assert frames.edges[-1] == size
    assert all(start < end for start, end in pairwise(frames.edges))
    columns: Sequence[Sequence[object]] = (frames.keys, frames.chunks, frames.sizes, frames.kinds)
    assert {len(column) for column in columns} == {len(frames.edges) - 1}


# ── by the reference writer ──


@cache
def golden(tag: str) -> list[tuple[Read, Digest]]:
    """The layers of `fixtures/estargz`, with their diff IDs."""
    blobs = FIXTURES / "estargz" / "oci" / "blobs" / "sha256"
    index = json.loads((FIXTURES / "estargz" / "oci" / "index.json").read_bytes())
    name = "org.opencontainers.image.ref.name"
    found = next(one for one in index["manifests"] if one["annotations"][name] == tag)
    manifest = parse_document((blobs / found["digest"][7:]).read_bytes())
    assert isinstance(manifest, Manifest)
    config: Config = parse_config(
        (blobs / manifest.config.digest[7:]).read_bytes(), len(manifest.layers)
    )
    return [
        (read(layer, (blobs / layer.digest[7:]).read_bytes()), diff_id)
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    ]


GOLDEN = [(tag, number) for tag in ("demo-v1", "demo-v2") for number in (0, 1)]


@pytest.mark.parametrize(("tag", "number"), GOLDEN)
def test_real_layers_are_tiled_by_sound_frames(tag: str, number: int) -> None:
    layer, diff_id = golden(tag)[number]
    tiles(layer.frames, layer.descriptor.size)
    assert layer.damaged() == []
    # no frame is cut in its middle
    whole = [b"".join(unpacked([data])) for _, _, data in layer.parts()]
    assert digest_of(b"".join(whole)) == diff_id
    assert layer.toc.tarsplit_digest is None


@pytest.mark.parametrize(("old", "new"), list(product(GOLDEN, GOLDEN)))
def test_equal_keys_are_equal_bytes_in_real_layers_and_nothing_is_missed(
    old: tuple[str, int], new: tuple[str, int]
) -> None:
    have = {(key, len(data)): data for key, _, data in golden(old[0])[old[1]][0].parts() if key}
    for key, kind, data in golden(new[0])[new[1]][0].parts():
        found = have.get((key, len(data)))
        assert found is None or found == data
        assert found is not None or kind == TAIL or key == NO_KEY or data not in have.values()


def test_a_real_update_fetches_what_a_comparison_of_bytes_leaves() -> None:
    """Most files have a new time in v2, and their header lies in the frame of the file before."""
    have = {(key, len(data)) for key, _, data in golden("demo-v1")[1][0].parts() if key}
    left = [
        len(data)
        for key, _, data in golden("demo-v2")[1][0].parts()
        if (key, len(data)) not in have
    ]
    assert (sum(left), golden("demo-v2")[1][0].descriptor.size) == (212_481, 230_592)


# ── by a writer of our own: shared frames, parts, chunks, zstd ──

BASE = [
    Entry("etc/", type="dir"),
    Entry("etc/one", b"1" * 700),
    Entry("etc/link", type="symlink", linkname="one"),
    Entry("etc/two", b"2" * 2500),
    Entry("etc/empty"),
    Entry("lib/three", b"3" * 100),
    Entry("lib/four", b"4" * 512),
]
COMPRESSIONS: list[Compression] = ["gzip", "zstd"]
SHAPES: list[dict[str, Any]] = [
    {},
    {"chunk_bytes": 1000},
    {"share_below": 200},
    {"share_below": 1 << 20},
    {"share_below": 200, "chunk_bytes": 300, "parts": ("etc/two", "lib/four")},
    {"parts": ("etc/link",), "owners": None},
]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_is_tiled_by_sound_frames(
    shape: dict[str, Any], compression: Compression
) -> None:
    layer = stargz_layer(make_tar(BASE), compression=compression, **shape)
    found = read_layer(layer, piece=7)
    tiles(found.frames, layer.size)
    assert found.damaged() == []
    assert b"".join(b"".join(unpacked([data])) for _, _, data in found.parts()) == layer.tar
    payload = b"".join(entry.data for entry in BASE)
    assert sum(found.frames.sizes) == len(payload)
    assert found.frames.is_joined


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exactly_the_frames_with_other_content_are_found(
    shape: dict[str, Any], compression: Compression
) -> None:
    layer = stargz_layer(make_tar(BASE), compression=compression, **shape)
    found = read_layer(layer)
    for number, kind in enumerate(found.frames.kinds):
        if kind == PAYLOAD:
            blob = bytearray(layer.blob)
            blob[(found.frames.edges[number] + found.frames.edges[number + 1]) // 2] ^= 0x55
            assert found.damaged(bytes(blob)) == [number]


def changed(number: int, **values: object) -> list[Entry]:
    entries = list(BASE)
    kept = {
        "name": entries[number].name,
        "type": entries[number].type,
        "linkname": entries[number].linkname,
    }
    entries[number] = Entry(**({"data": entries[number].data} | kept | values))  # type: ignore[arg-type]
    return entries


CHANGES: list[tuple[int, dict[str, Any]]] = [
    (0, {"mode": 0o700}), (1, {"mtime": 6}), (1, {"data": b"x" * 700}), (1, {"data": b"1" * 701}),
    (2, {"linkname": "two"}), (3, {"uid": 7}), (3, {"data": b"2" * 2499 + b"3"}), (4,
     {"name": "etc/hollow"}),
    (5, {"xattrs": {"user.digest": b"x", "digest": b"y"}}), (6, {"mtime": 9}),
]  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("number", "values"), CHANGES)
def test_of_one_writer_equal_keys_are_equal_bytes(
    number: int, values: dict[str, Any], shape: dict[str, Any], compression: Compression
) -> None:
    """And of frames that are the same.

    All are found where the frames are cut at the same places.
    """
    old = read_layer(stargz_layer(make_tar(BASE), compression=compression, **shape))
    new = read_layer(
        stargz_layer(make_tar(changed(number, **values)), compression=compression, **shape)
    )
    have = {key: data for key, _, data in old.parts() if key}
    for key, kind, data in new.parts():
        if key in have:
            assert have[key] == data
        elif kind == PAYLOAD and key and "parts" not in shape:
            assert data not in have.values()


def test_a_name_is_part_of_a_key_though_it_is_stated_once() -> None:
    """Where it is stated moves with the first entry; what all have to say does not."""
    plain = read_layer(stargz_layer(make_tar(BASE)))
    moved = read_layer(stargz_layer(make_tar([Entry("a", b"a"), *BASE])))
    other = read_layer(stargz_layer(make_tar(BASE), owners=("wheel", "wheel")))
    assert set(plain.frames.keys[1:-2]) <= set(moved.frames.keys)
    assert not set(plain.frames.keys[:-3]) & set(other.frames.keys) - {NO_KEY}


def test_gzip_and_zstd_share_no_key() -> None:
    one, two = (read_layer(stargz_layer(make_tar(BASE), compression=form)) for form in COMPRESSIONS)
    assert not set(one.frames.keys) & set(two.frames.keys) - {NO_KEY}


def test_the_last_payload_and_the_tail_are_always_fetched() -> None:
    for compression in COMPRESSIONS:
        frames = read_layer(stargz_layer(make_tar(BASE), compression=compression)).frames
        assert frames.kinds[-2:] == bytes((PAYLOAD, TAIL))
        assert frames.keys[-2:] == [NO_KEY, NO_KEY]
        assert all(frames.keys[:-2])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_layer_without_payloads_is_headers_and_tail(compression: Compression) -> None:
    layer = stargz_layer(
        make_tar([Entry("etc/", type="dir"), Entry("etc/empty")]), compression=compression
    )
    frames = read_layer(layer).frames
    tiles(frames, layer.size)
    assert bytes(frames.kinds) == bytes((HEADER, TAIL))
    assert frames.keys == [NO_KEY, NO_KEY]


def test_a_layer_without_entries_is_its_table() -> None:
    """BuildKit writes an empty layer so, without landmarks."""
    layer = stargz_layer(make_tar([]))
    found = read_layer(layer)
    assert found.location.toc.span.start == 0
    tiles(found.frames, layer.size)
    assert bytes(found.frames.kinds) == bytes((TAIL,))


# ── where things lie ──

GOOD = stargz_layer(make_tar(BASE))


def test_what_a_layer_is_is_told_by_type_and_annotations_alone() -> None:
    assert format_of(described(GOOD)).name == "estargz"
    docker = described(GOOD, media_type="application/vnd.docker.image.rootfs.diff.tar.gzip")
    assert format_of(docker).name == "estargz"
    for layer in (
        described(stargz_layer(make_tar(BASE), compression="zstd")),
        described(gzip_layer(b"")),
    ):
        assert format_of(layer).name == "zstd:chunked"
        assert format_of(layer).tail(layer.size) is None
    for media_type in (LAYER, LAYER + "+gzip+encrypted"):
        with pytest.raises(UnsupportedLayerError):
            format_of(described(GOOD, media_type=media_type)).locate(
                described(GOOD, media_type=media_type)
            )


def test_two_names_for_one_table_are_read_only_where_stargz_writes_them() -> None:
    layer = stargz_layer(make_tar(BASE), compression="zstd")
    assert format_of(described(layer)).locate(described(layer)).is_joined
    with pytest.raises(UnsupportedLayerError, match="as eStargz and as zstd:chunked"):
        locate(described(layer))
    renamed = {
        PREFIX + key.rpartition(".")[2]: text
        for key, text in layer.annotations.items()
        if "manifest" in key
    }
    both = described(layer, annotations=renamed | {STARGZ_DIGEST: "sha256:" + "0" * 64})
    with pytest.raises(UnsupportedLayerError, match="as eStargz and as zstd:chunked"):
        format_of(both).locate(both)


def test_the_footer_is_at_the_end_and_the_likely_tail_has_the_table() -> None:
    assert estargz.footer_span(GOOD.size).size == 51
    form = format_of(described(GOOD))
    assert form.tail(GOOD.size) == estargz.footer_span(GOOD.size)
    assert form.tail(GOOD.size, is_thrifty=False) == estargz.likely_tail(GOOD.size)
    tail = estargz.likely_tail(GOOD.size)
    found = estargz.locate(described(GOOD), GOOD.blob[tail.start :])
    assert GOOD.toc_at is not None
    assert found.toc.span == (GOOD.toc_at.offset, GOOD.size - 51)
    assert tail.start <= found.toc.span.start
    assert found.payload_end == GOOD.toc_at.offset
    for size in (51, 1000, 10 * MiB, 10_000 * MiB):
        assert 0 <= estargz.likely_tail(size).start < size == estargz.likely_tail(size).end
        assert estargz.likely_tail(size).size <= MiB
    for ask in (estargz.footer_span, estargz.likely_tail):
        with pytest.raises(UnsupportedLayerError):
            ask(50)


def test_the_footer_of_2019_is_known_too() -> None:
    layer = stargz_layer(make_tar(BASE), legacy_footer=True)
    found = read_layer(layer)
    tiles(found.frames, layer.size)
    assert found.location.toc.span.end == layer.size - 47


@pytest.mark.parametrize("at", [GOOD.size - 51, GOOD.size, 1 << 62, (1 << 64) - 1])
def test_a_table_outside_of_the_blob_is_a_lie(at: int) -> None:
    layer = stargz_layer(make_tar(BASE), edit_footer=lambda _: footer(at))
    with pytest.raises(FormatError, match="is said to lie at"):
        read_layer(layer)


def test_a_table_at_the_start_that_is_none() -> None:
    layer = stargz_layer(make_tar(BASE), edit_footer=lambda _: footer(0))
    with pytest.raises((FormatError, IntegrityError)):
        read_layer(layer)


def test_a_table_above_the_limits_comes_whole_before_it_is_asked_for() -> None:
    with pytest.raises(UnsupportedLayerError, match="above the limit"):
        read_layer(GOOD, limits=Limits(toc_bytes=100))


def test_a_table_that_decodes_to_more_than_the_limit_comes_whole() -> None:
    assert GOOD.toc_at is not None
    limits = Limits(toc_bytes=GOOD.toc_at.length + 1)
    assert GOOD.toc_at.usize > limits.toc_bytes
    with pytest.raises(UnsupportedLayerError, match="above the limit"):
        read_layer(GOOD, limits=limits)


@given(mutants(GOOD.blob[-200:]) | st.binary(max_size=60))
def test_whatever_the_tail_a_place_in_the_blob_or_one_of_two_errors(tail: bytes) -> None:
    try:
        found = estargz.locate(described(GOOD), tail)
    except (FormatError, UnsupportedLayerError) as error:
        brief(error)
    else:
        assert 0 < found.toc.span.start < found.toc.span.end <= GOOD.size


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "G" * 64, "sha512:" + "0" * 128, "../../etc/passwd"]
)
def test_a_digest_of_another_form_is_a_lie(text: str) -> None:
    with pytest.raises(FormatError):
        estargz.locate(described(GOOD, annotations={STARGZ_DIGEST: text}), GOOD.blob)


# ── the table's member ──


def member_of(text: bytes, name: str = "stargz.index.json", **entry: Any) -> bytes:
    return gzip.compress(make_tar([Entry(name, text, **entry)]), mtime=0)


def text_of(member: bytes, edges: Sequence[int] = (), limits: Limits = Limits()) -> bytes:
    decoder = estargz.TocMember(limits)
    bounds = sorted({0, len(member), *(min(edge, len(member)) for edge in edges)})
    text = b"".join(b"".join(decoder.feed(member[start:end])) for start, end in pairwise(bounds))
    decoder.finish()
    return text


@given(
    st.binary(max_size=3000) | st.integers(0, 1 << 20).map(bytes),
    st.lists(st.integers(0, 4000), max_size=6),
)
def test_any_cut_of_the_member_gives_the_text(text: bytes, edges: list[int]) -> None:
    assert text_of(member_of(text), edges) == text


@given(mutants(member_of(b"text " * 300)), st.lists(st.integers(0, 4000), max_size=4))
def test_whatever_the_member_bounded_text_or_an_error(member: bytes, edges: list[int]) -> None:
    try:
        assert len(text_of(member, edges, Limits(toc_bytes=5000))) <= 5000
    except (FormatError, UnsupportedLayerError) as error:
        brief(error)


def test_a_bomb_costs_a_step() -> None:
    """A gibibyte of zeros behind the table, and in its place."""
    zeros = zlib.compressobj(9, wbits=31)
    bomb = b"".join([zeros.compress(make_tar({"stargz.index.json": b"x" * 700})), *(
        zeros.compress(bytes(16 * MiB)) for _ in range(16)
    ), zeros.flush()])  # fmt: skip
    for member in (bomb, gzip.compress(bytes(64 * MiB))):
        tracemalloc.start()
        try:
            if member is bomb:
                assert text_of(member) == b"x" * 700
            else:
                with pytest.raises(FormatError):
                    text_of(member)
            assert tracemalloc.get_traced_memory()[1] < 2 * MiB
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(("member", "words"), [
    (member_of(b"{}", "other.json"), "not a file"),
    (member_of(b"", type="dir"), "not a file"),
    (gzip.compress(make_tar({"stargz.index.json": b"x" * 700})[:900], mtime=0), "ends before"),
    (gzip.compress(make_tar({"stargz.index.json": b"x"})[:300], mtime=0), "ends before"),
    (member_of(b"x" * 700)[:-200], "ends before"),
    (b"no gzip at all", "broken gzip member"),
    (b"", "ends before"),
])  # fmt: skip
def test_what_is_no_table_is_refused(member: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        text_of(member)


def test_a_damaged_table_is_told_from_one_that_lies() -> None:
    """The digest is over the text.

    Bytes that do not decode to it came damaged, whatever is wrong with them.
    """
    assert GOOD.toc_at is not None
    for at in range(GOOD.toc_at.offset + 10, GOOD.size - 51 - 8, 37):
        blob = bytearray(GOOD.blob)
        blob[at] ^= 0xFF
        with pytest.raises(IntegrityError, match="TOC of layer"):
            read(described(GOOD), bytes(blob))
    with pytest.raises(FormatError, match="version"):
        read_layer(stargz_layer(make_tar(BASE), edit_toc_json=lambda _: b"{}"))


# ── tables that lie ──


@given(json_mutants(GOOD.toc), st.sampled_from(COMPRESSIONS))
def test_whatever_the_table_says_a_tiling_or_an_error(
    toc: object, compression: Compression
) -> None:
    text = json.dumps(toc).encode()
    layer = stargz_layer(make_tar(BASE), compression=compression, edit_toc_json=lambda _: text)
    try:
        found = read_layer(layer)
    except (FormatError, UnsupportedLayerError) as error:
        brief(error)
    else:
        tiles(found.frames, layer.size)
        assert set(found.damaged()) <= set(range(len(found.frames)))


def entry(toc: dict[str, Any], name: str, chunk: int = 0) -> dict[str, Any]:
    found: list[dict[str, Any]] = [one for one in toc["entries"] if one["name"] == name]
    return found[chunk]


LIES = {
    "beyond the tail": (lambda toc: entry(toc, "lib/four").update(offset=1 << 40), FormatError),
    "at the blob's first byte": (lambda toc: entry(toc, "etc/one").update(offset=0), FormatError),
    "two in one place": (
        lambda toc: entry(toc, "etc/two").update(offset=entry(toc, "etc/one")["offset"]),
        FormatError,
    ),
    "backwards": (lambda toc: entry(toc, "lib/four").update(offset=1), UnsupportedLayerError),
    "no digest": (lambda toc: entry(toc, "etc/one").update(digest=""), UnsupportedLayerError),
    "chunks without digests": (
        lambda toc: entry(toc, "etc/two", 1).update(chunkDigest=""),
        UnsupportedLayerError,
    ),
    "another digest": (
        lambda toc: entry(toc, "etc/one").update(chunkDigest="sha256:" + "0" * 64),
        FormatError,
    ),
    "chunks apart": (lambda toc: entry(toc, "etc/two", 1).update(chunkOffset=999), FormatError),
    "too short": (lambda toc: entry(toc, "etc/two").update(size=1900), FormatError),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_lies_about_places_are_refused(lie: str, compression: Compression) -> None:
    edit, error = LIES[lie]
    with pytest.raises(error):
        read_layer(
            stargz_layer(make_tar(BASE), compression=compression, chunk_bytes=1000, edit_toc=edit)
        )


def test_where_files_end_is_not_read_where_frames_go_on() -> None:
    def edit(toc: dict[str, Any]) -> None:
        for one in toc["entries"]:
            if "offset" in one:
                one["endOffset"] = one["offset"] + 1

    found = read_layer(stargz_layer(make_tar(BASE), edit_toc=edit))
    assert found.frames.edges[:-1] == read_layer(GOOD).frames.edges[:-1]
    assert found.damaged() == []


def test_a_frame_that_decodes_without_end_is_no_flood() -> None:
    """Content first, then zeros.

    The check stops at the limit of a tar, and holds a step at most.
    """
    found = read_layer(GOOD)
    number = found.frames.kinds.index(PAYLOAD)
    chunk = found.frames.chunks[number]
    assert found.toc.chunk_sizes[chunk] == 700
    bomb = gzip.compress(b"1" * 700 + bytes(32 * MiB), mtime=0)
    tracemalloc.start()
    try:
        form = format_of(found.descriptor)
        assert form.damaged(found.toc, found.frames, [number], [bomb], Limits(tar_bytes=MiB)) == [
            number
        ]
        assert tracemalloc.get_traced_memory()[1] < 2 * MiB
    finally:
        tracemalloc.stop()
