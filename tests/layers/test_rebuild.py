"""Recipe and store give the tar, wherever its bytes lie; and nothing else passes for it."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.build.front import (
    Entry,
    Json,
    Layer,
    chunked_layer,
    every,
    gzip_layer,
    make_tar,
    never,
    rolling,
    tar_layer,
    zstd_layer,
)
from tests.helpers.build.stored import descriptor_of, keep_metadata, keep_parts, quick_folder, write
from zchunked.errors import FormatError, IntegrityError, LimitError
from zchunked.formats.annotations import locate
from zchunked.formats.frames.decompress import unpacked
from zchunked.layers.chunk_data import chunk_data, is_chunk
from zchunked.layers.metadata import read_index_and_tarsplit
from zchunked.layers.rebuild import Rebuild
from zchunked.limits import Limits
from zchunked.oci.digest import Digest, digest_of, raw
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.chunks import ChunkLocation

MiB = 1 << 20
FILES = {
    "etc/": b"", "etc/hello": b"hello\n", "etc/copy": b"hello\n", "empty": b"",
    "big": bytes(range(256)) * 40, "zeros": bytes(3000),
    "hole": b"X" * 16 + bytes(2048) + b"Y" * 16, "text": b"a line of text\n" * 500,
}  # fmt: skip
LAYER = chunked_layer(make_tar(FILES), cut=every(2500))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as found:
        yield found


def places_in(layer: Layer) -> dict[bytes, ChunkLocation]:
    return {
        raw(Digest(c.digest)): ChunkLocation(Digest(layer.digest), c.start, c.end - c.start)
        for c in layer.chunks
    }


def rebuilt(
    store: Store,
    layer: Layer,
    places: dict[bytes, ChunkLocation] | None = None,
    limits: Limits | None = None,
) -> bytes:
    index = read_index_and_tarsplit(store, descriptor_of(layer))
    return b"".join(
        Rebuild(
            store, index, places_in(layer) if places is None else places, limits=limits or Limits()
        ).tar()
    )


# ── any cached subset → the same tar ──

CONTENTS = st.one_of(
    st.binary(max_size=300),
    st.integers(0, 5000).map(bytes),
    st.integers(1, 4000).map(lambda n: bytes(range(250)) * (n // 250 + 1)),
)
TREES = st.dictionaries(st.text("abé", min_size=1, max_size=4), CONTENTS, min_size=1, max_size=5)
CUTS = st.sampled_from([never, rolling, every(100), every(999)])


@given(TREES, CUTS, st.sampled_from([3, 4]), st.data())
@settings(max_examples=40)
def test_wherever_the_chunks_lie_the_tar_is_the_same(
    files: dict[str, bytes], cut: Any, generation: Any, data: st.DataObject
) -> None:
    """The same contents in three layers.

    Another level of compression, another order, other neighbours.
    """
    layer = chunked_layer(make_tar(files), cut=cut, generation=generation)
    reverse = make_tar([Entry("z" + name, files[name]) for name in reversed(files)])
    holders = [
        layer,
        chunked_layer(reverse, cut=cut, level=19),
        chunked_layer(make_tar({"new": b"other" * 99} | files), cut=cut, level=1),
    ]
    with (
        quick_folder() as folder,
        Store(folder / "full") as store,
        Store(folder / "empty") as empty,
    ):
        keep_metadata(store, layer)
        places = {}
        spans: dict[int, list[ByteRange]] = {}
        for digest in places_in(layer):
            holder = data.draw(st.integers(0, 2))
            places[digest] = places_in(holders[holder])[digest]
            spans.setdefault(holder, []).append(places[digest].span)
        for holder, wanted in spans.items():
            write(store, holders[holder], data.draw(st.permutations(wanted)))
        assert rebuilt(store, layer, places) == layer.tar
        with pytest.raises(IntegrityError):
            rebuilt(empty, layer, places)


def test_small_contents_in_large_spans_do_not_fill_the_memory(store: Store) -> None:
    """A skippable frame before each payload: legal, and of any size."""
    filler = b"\x50\x2a\x4d\x18" + (1_900_000).to_bytes(4, "little") + bytes(1_900_000)
    files = {f"f{number}": bytes([number]) for number in range(20)}
    layer = chunked_layer(make_tar(files), edit_payload=lambda _, frame: filler + frame)
    index = keep_metadata(store, layer)
    write(store, layer, [ByteRange(0, layer.size)])
    tracemalloc.start()
    try:
        assert b"".join(Rebuild(store, index, places_in(layer)).tar()) == layer.tar
        assert tracemalloc.get_traced_memory()[1] < 16 * MiB < layer.size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("generation", [3, 4])
def test_a_layer_kept_in_parts_is_its_tar(store: Store, generation: Any) -> None:
    layer = chunked_layer(make_tar(FILES), cut=every(2500), generation=generation)
    index = keep_parts(store, layer)
    assert rebuilt(store, layer, store.find_chunks(list(index.toc.digests))) == layer.tar


def test_holes_are_not_looked_for(store: Store) -> None:
    keep_parts(store, LAYER)
    places = places_in(LAYER)
    del places[raw(digest_of(bytes(2048)))]
    assert rebuilt(store, LAYER, places) == LAYER.tar


def test_the_tar_comes_in_blocks_and_asks_for_bytes_in_order(store: Store) -> None:
    layer = chunked_layer(
        make_tar({f"f{number}": bytes([number]) * 100_000 for number in range(20)}),
        cut=every(30_000),
    )
    index = keep_parts(store, layer)
    asked: list[int] = []
    rebuild = Rebuild(store, index, places_in(layer), lambda blob, end: asked.append(end))
    blocks = list(rebuild.tar())
    assert b"".join(blocks) == layer.tar
    assert max(map(len, blocks)) < MiB
    assert len(blocks) > 5
    assert asked[-1] == max(chunk.end for chunk in layer.chunks)


def test_a_tar_of_nothing_but_headers_comes_in_blocks_too(store: Store) -> None:
    layer = chunked_layer(make_tar({f"empty{number}": b"" for number in range(6000)}))
    index = keep_parts(store, layer)
    blocks = list(Rebuild(store, index, places_in(layer)).tar())
    assert b"".join(blocks) == layer.tar
    assert max(map(len, blocks)) < MiB < len(layer.tar)


def test_contents_that_come_again_are_read_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they come again at once, or when much else has come in between."""
    files = {f"licence{number}": b"as is" for number in range(0, 40, 2)}
    files |= {f"large{number}": bytes([number]) * 200_000 for number in range(1, 40, 2)}
    layer = chunked_layer(
        make_tar(dict(sorted(files.items(), key=lambda file: int(file[0][-2:].lstrip("eg")))))
    )
    keep_parts(store, layer)
    read: list[int] = []
    read_many = store.read_many

    def noted(blob: Digest, spans: list[tuple[int, int]]) -> list[bytes | memoryview]:
        read.extend(start for start, _ in spans)
        return read_many(blob, spans)

    monkeypatch.setattr(store, "read_many", noted)
    assert rebuilt(store, layer, store.find_chunks(list(places_in(layer)))) == layer.tar
    assert len(read) == len(set(read)) == 21


def test_one_chunk_over_and_over_does_not_fill_the_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = chunked_layer(make_tar({"same": b"0123456789" * 40_000}), cut=every(10))
    index = keep_parts(store, layer)
    rebuild = Rebuild(store, index, places_in(layer))
    held: list[int] = []
    load = rebuild._load

    def noted(some: list[bytes | int], asked: Any) -> list[bytes]:
        held.append(len(some))
        return load(some, asked)

    monkeypatch.setattr(rebuild, "_load", noted)
    assert b"".join(rebuild.tar()) == layer.tar
    assert max(held) < 5_000 < len(layer.chunks)


def test_a_large_chunk_is_streamed(store: Store) -> None:
    content = bytes(range(251)) * 40_000
    layer = chunked_layer(make_tar({"a": content}), cut=never)
    keep_parts(store, layer)
    (place,) = places_in(layer).values()
    pieces = list(chunk_data(store, place, len(content)))
    assert b"".join(pieces) == content
    assert len(pieces) > 1
    assert is_chunk(store, place, len(content), raw(digest_of(content)))
    assert rebuilt(store, layer) == layer.tar


# ── what is wrong is noticed ──


def with_damage(store: Store, layer: Layer, where: int) -> None:
    """The bytes of the layer, one of them flipped, instead of the good ones."""
    damaged = bytearray(layer.blob)
    damaged[where] ^= 0x10
    start, end = max(where - 5, 0), where + 5
    store.evict(Digest(layer.digest), [ByteRange(start, end)])
    writer = store.writer(Digest(layer.digest), layer.size)
    writer.write(start, bytes(damaged[start:end]))
    writer.close()


@given(st.floats(0, 1, exclude_max=True), st.sampled_from([3, 4]))
def test_a_flipped_bit_anywhere_never_gives_another_tar(where: float, generation: Any) -> None:
    layer = chunked_layer(make_tar(FILES), cut=every(2500), generation=generation)
    with quick_folder() as folder, Store(folder) as store:
        write(store, layer, [ByteRange(0, layer.size)])
        with_damage(store, layer, int(where * layer.size))
        with contextlib.suppress(IntegrityError, FormatError):
            assert rebuilt(store, layer) == layer.tar, "the byte was none that the tar needs"


def test_a_missing_chunk_is_an_integrity_error(store: Store) -> None:
    keep_metadata(store, LAYER)
    with pytest.raises(IntegrityError, match=r"are not in the store"):
        rebuilt(store, LAYER)
    with pytest.raises(IntegrityError, match=r"chunk [0-9a-f]{64} is not in the store"):
        rebuilt(store, LAYER, {})


def test_the_wrong_chunk_at_a_place_is_an_integrity_error(store: Store) -> None:
    keep_parts(store, LAYER)
    places = places_in(LAYER)
    first = places_in(LAYER)[raw(digest_of(FILES["etc/hello"]))]
    second = places_in(LAYER)[raw(digest_of(FILES["big"][:2500]))]
    for digest in places:
        wrong = second if places[digest].start == first.start else first
        if digest != raw(digest_of(bytes(2048))):
            with pytest.raises(IntegrityError):
                rebuilt(store, LAYER, places | {digest: wrong})


def test_chunks_of_the_right_size_in_the_wrong_order_do_not_match_the_files_checksum(
    store: Store,
) -> None:
    one, two = b"1" * 1000, b"2" * 1000
    layer = chunked_layer(make_tar({"a": one + two}), cut=every(1000))
    keep_parts(store, layer)
    places = places_in(layer)
    first, second = raw(digest_of(one)), raw(digest_of(two))
    with pytest.raises(
        IntegrityError, match=r"checksum in the tar-split|digest in the TOC although its chunks do"
    ):
        rebuilt(store, layer, {first: places[second], second: places[first]})


def test_a_lying_checksum_in_the_tar_split_is_noticed(store: Store) -> None:
    def lie(lines: list[Json]) -> None:
        lines[1]["payload"] = "AAAAAAAAAAA="

    layer = chunked_layer(make_tar({"a": b"hello\n"}), edit_tar_split=lie)
    keep_parts(store, layer)
    with pytest.raises(IntegrityError, match="does not match its checksum in the tar-split"):
        rebuilt(store, layer)


def test_a_lying_file_digest_is_noticed_although_all_chunks_are_right(store: Store) -> None:
    def lie(toc: Json) -> None:
        toc["entries"][0]["digest"] = digest_of(b"something else")

    layer = chunked_layer(make_tar({"a": b"1" * 1000 + b"2" * 1000}), cut=every(1000), edit_toc=lie)
    keep_parts(store, layer)
    with pytest.raises(
        IntegrityError, match="does not match its digest in the TOC although its chunks do"
    ):
        rebuilt(store, layer)


@pytest.mark.parametrize("off", [-1, 1])
def test_a_chunk_decodes_to_its_exact_size(store: Store, off: int) -> None:
    keep_parts(store, LAYER)
    chunk = LAYER.chunks[0]
    place = places_in(LAYER)[raw(Digest(chunk.digest))]
    assert is_chunk(store, place, chunk.usize, raw(Digest(chunk.digest)))
    assert not is_chunk(store, place, chunk.usize + off, raw(Digest(chunk.digest)))
    assert not is_chunk(store, place, chunk.usize, raw(digest_of(b"x")))
    assert not is_chunk(
        store,
        ChunkLocation(place.blob, place.start, place.length - 1),
        chunk.usize,
        raw(Digest(chunk.digest)),
    )
    assert not is_chunk(
        store, ChunkLocation(digest_of(b"unknown"), 0, 10), chunk.usize, raw(Digest(chunk.digest))
    )


def test_a_tar_above_our_limit_is_refused_wherever_its_bytes_come_from(store: Store) -> None:
    keep_parts(store, LAYER)
    with pytest.raises(LimitError, match="the limit"):
        rebuilt(store, LAYER, limits=Limits(tar_bytes=len(LAYER.tar) - 1))


# ── table of contents and tar-split ──


@pytest.mark.parametrize("part", ["toc", "tarsplit"])
def test_damaged_metadata_is_an_integrity_error(store: Store, part: str) -> None:
    keep_parts(store, LAYER)
    found = getattr(locate(descriptor_of(LAYER)), part)
    with_damage(store, LAYER, found.span.start + 20)
    with pytest.raises(
        IntegrityError, match="TOC of layer" if part == "toc" else "tar-split of layer"
    ):
        read_index_and_tarsplit(store, descriptor_of(LAYER))


def test_missing_metadata_is_an_integrity_error(store: Store) -> None:
    with pytest.raises(IntegrityError, match="not in the store"):
        read_index_and_tarsplit(store, descriptor_of(LAYER))


def test_a_tar_split_that_no_digest_vouches_for_is_not_used(store: Store) -> None:
    layer = chunked_layer(
        make_tar(FILES), generation=4, edit_toc=lambda toc: toc.pop("tarSplitDigest") and toc
    )
    index = keep_parts(store, layer)
    assert index.tarsplit is None
    with pytest.raises(IntegrityError, match="no digest vouches for a tar-split"):
        rebuilt(store, layer)


def test_a_digest_without_a_place_contradicts_itself(store: Store) -> None:
    def lie(marks: dict[str, str]) -> dict[str, str]:
        return {key: text for key, text in marks.items() if "tarsplit" not in key}

    layer = chunked_layer(make_tar(FILES), edit_annotations=lie)
    write(store, layer, [ByteRange(0, layer.size)])
    with pytest.raises(FormatError, match="no position for it"):
        read_index_and_tarsplit(store, descriptor_of(layer))


@pytest.mark.parametrize("off", [-1, 1])
def test_tables_decode_to_the_exact_size_they_claim(store: Store, off: int) -> None:
    def lie(key: str) -> Any:
        def edit(marks: dict[str, str]) -> dict[str, str]:
            name = next(name for name in marks if name.endswith(key))
            numbers = marks[name].split(":")
            numbers[2] = str(int(numbers[2]) + off)
            return marks | {name: ":".join(numbers)}

        return edit

    layer = chunked_layer(make_tar(FILES), edit_annotations=lie("manifest-position"))
    write(store, layer, [ByteRange(0, layer.size)])
    with pytest.raises(FormatError):
        read_index_and_tarsplit(store, descriptor_of(layer))
    layer = chunked_layer(make_tar(FILES | {"x": b"y"}), edit_annotations=lie("tarsplit-position"))
    keep_parts(store, layer)
    with pytest.raises(FormatError):
        rebuilt(store, layer)


# ── layers that are here whole ──


def cut(data: bytes, edges: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(edge % (len(data) + 1) for edge in edges)})
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


TAR = make_tar(FILES)
EDGES = st.lists(st.integers(0, 10**6), max_size=8) | st.just(list(range(12)))


@given(EDGES)
def test_a_whole_layer_of_any_kind_unpacks_to_its_tar_however_it_is_cut(edges: list[int]) -> None:
    members = (
        gzip.compress(TAR[:1000]) + gzip.compress(b"") + gzip.compress(TAR[1000:]) + bytes(700)
    )
    for blob in (
        tar_layer(TAR).blob,
        gzip_layer(TAR).blob,
        zstd_layer(TAR).blob,
        LAYER.blob,
        members,
    ):
        assert b"".join(unpacked(cut(blob, edges))) == TAR


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""]])
def test_an_empty_layer_is_an_empty_tar(pieces: list[bytes]) -> None:
    assert b"".join(unpacked(pieces)) == b""


@given(st.integers(1, len(gzip_layer(TAR).blob) - 1))
def test_a_gzip_layer_that_ends_early_is_refused(end: int) -> None:
    blob = gzip_layer(TAR).blob[:end]
    if blob[:2] == b"\x1f\x8b":
        with pytest.raises(FormatError):
            list(unpacked([blob]))


@pytest.mark.parametrize("blob", [
    gzip_layer(TAR).blob + b"junk", gzip_layer(TAR).blob[:-8] + bytes(8), b"\x1f\x8bjunk",
    b"\x1f\x8b\x08\0" + b"\xff" * 100,
    zstd_layer(TAR).blob[:-1], zstd_layer(TAR).blob + b"junk",
])  # fmt: skip
def test_a_broken_layer_is_refused(blob: bytes) -> None:
    with pytest.raises(FormatError):
        list(unpacked([blob]))


@given(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"",
            b"\x1f\x8b\x08\0",
            b"\x28\xb5\x2f\xfd",
            b"\x50\x2a\x4d\x18",
            gzip_layer(TAR).blob[:100],
        ]
    ),
    EDGES,
)
def test_whatever_the_bytes_a_tar_or_a_format_error(
    junk: bytes, start: bytes, edges: list[int]
) -> None:
    try:
        for block in unpacked(cut(start + junk, edges)):
            assert block
    except FormatError:
        pass


@pytest.mark.parametrize(
    "compress", [lambda data: data, gzip.compress, lambda data: zstd_layer(data).blob]
)
def test_a_bomb_stops_at_our_limit(compress: Any) -> None:
    blob = compress(bytes(30 * MiB))
    pieces = [blob[at : at + MiB] for at in range(0, len(blob), MiB)]
    passed: list[int] = []
    with pytest.raises(FormatError):
        passed.extend(map(len, unpacked(pieces, Limits(tar_bytes=20 * MiB))))
    assert sum(passed) <= 20 * MiB


def test_gzip_of_a_stored_block_of_exactly_one_step() -> None:
    data = bytes(range(256)) * 1024
    for size in (len(data) - 1, len(data), len(data) * 2):
        plain = (data * 2)[:size]
        for level in (0, 9):
            packer = zlib.compressobj(level, wbits=31)
            assert b"".join(unpacked([packer.compress(plain) + packer.flush()])) == plain
