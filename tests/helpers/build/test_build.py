"""The writer against real writers' images, the standard library, and the format's own laws."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import tarfile
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.build.front import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY_FRAME,
    END_OF_ARCHIVE,
    OLD_PREFIX,
    PREFIX,
    ZSTD_INSTANCE,
    Chunk,
    Entry,
    Json,
    Layer,
    Part,
    chunked_layer,
    crc64,
    every,
    gzip_layer,
    image,
    index,
    layout,
    make_tar,
    never,
    parse_tar,
    pieces,
    read_layout,
    rolling,
    sha256,
    tar_layer,
    write_layout,
    zstd_layer,
)
from tests.helpers.build.golden import Golden, all_golden

TIMES = ("modtime", "accesstime", "changetime")


def inflate(frames: bytes) -> list[bytes]:
    """What each frame holds; a skippable one holds nothing."""
    found = []
    while frames:
        if frames[:4] == b"\x50\x2a\x4d\x18":
            frames = frames[8 + struct.unpack("<I", frames[4:8])[0] :]
            continue
        decoder = zstandard.ZstdDecompressor().decompressobj()
        found.append(decoder.decompress(frames))
        assert decoder.eof
        frames = decoder.unused_data
    return found


def cut_out(layer: Layer, part: Part | None) -> bytes:
    assert part
    return layer.blob[part.offset : part.end]


# ── as the real writers do ──

REAL = [
    pytest.param(golden, number, id=f"{golden}-{number}")
    for golden in all_golden()
    for number, layer in enumerate(golden.layers)
    if layer["kind"] == "zstd:chunked"
    # The writer expanded a sparse file: that tar is not what it read.
    and not (golden.tag == "unverifiable-pax-sparse" and "decompresses_to" in layer)
]


def instant(text: str) -> tuple[datetime, str]:
    whole, fraction = text[:19], text[19:].rstrip("Z").partition("+")[0]
    return datetime.fromisoformat(whole + (text[-6:] if text[-6] == "+" else "+00:00")), fraction


def comparable(toc: Json) -> list[Json]:
    """Entries without what depends on the encoder, and with times as instants."""
    return [
        {key: instant(value) if key in TIMES else value for key, value in entry.items()}
        | {key: None for key in ("offset", "endOffset") if key in entry}
        for entry in toc["entries"] or []
    ]


@pytest.mark.parametrize(("golden", "number"), REAL)
def test_writes_what_the_real_writer_wrote(golden: Golden, number: int) -> None:
    truth = golden.layers[number]
    blob = golden.blob(truth["digest"])
    real_toc, real_split = (truth["toc"], truth["tar_split"])
    frames = inflate(blob[: real_toc["offset"] - 8])
    tar = b"".join(frames)
    layer = chunked_layer(tar, generation=4 if truth["generation"] == "G4" else 1)

    assert layer.diff_id == truth.get("decompresses_to", truth["diff_id"])
    assert layer.toc_at
    assert frames == inflate(layer.blob[: layer.toc_at.offset - 8])
    toc = json.loads(inflate(blob[real_toc["offset"] : real_toc["offset"] + real_toc["length"]])[0])
    assert comparable(toc) == comparable(layer.toc)
    assert [list(entry) for entry in toc["entries"] or []] == [
        list(entry) for entry in layer.toc["entries"] or []
    ]
    if real_split:
        (lines,) = inflate(blob[real_split["offset"] : real_split["offset"] + real_split["length"]])
        assert lines == layer.tar_split_json
    assert [(c.at, c.usize, c.digest, c.zeros) for c in layer.chunks] == [
        (c["at"], c["usize"], c["digest"], c.get("zeros", False)) for c in truth["chunks"]
    ]
    assert (
        blob[-72 if truth["footer"] == "F64" else -48 :][:8]
        == layer.blob[-72 if real_split else -48 :][:8]
    )


@pytest.mark.parametrize(("golden", "number"), REAL)
def test_reads_a_tar_as_the_truths_say(golden: Golden, number: int) -> None:
    tar = b"".join(inflate(golden.blob(golden.layers[number]["digest"])))
    members, _, _ = parse_tar(tar)
    truths = golden.entries(number)
    assert len(members) == len(truths)
    for member, truth in zip(members, truths, strict=True):
        name = (
            base64.b64decode(truth["name_b64"]) if "name_b64" in truth else truth["name"].encode()
        )
        assert (member.name, member.type, len(member.data)) == (name, truth["type"], truth["size"])
        assert (member.mode, member.uid, member.gid) == (
            int(truth["mode"], 8),
            truth["uid"],
            truth["gid"],
        )
        assert Decimal(member.mtime) / 10**9 == Decimal(truth["mtime"])
        if member.type == "reg":
            assert hashlib.sha256(member.data).hexdigest() == truth["sha256"]
        xattrs = {key: base64.b64encode(value).decode() for key, value in member.xattrs.items()}
        assert xattrs == truth.get("xattrs", {})


def test_the_worked_example() -> None:
    """Section 9 of the format's description; only compressed lengths may differ."""
    hole = b"X" * 16 + bytes(2048) + b"Y" * 16
    tar = make_tar(
        [
            Entry("a", b"hello\n"),
            Entry("b", b"hello\n"),
            Entry("hole", hole),
            Entry("lnk", type="hardlink", linkname="a"),
        ]
    )
    golden = Golden("worked-example", "worked-example")
    (truth,) = golden.layers
    real = golden.blob(truth["digest"])
    assert [(m.name, m.data, m.linkname) for m in parse_tar(b"".join(inflate(real)))[0]] == [
        (m.name, m.data, m.linkname) for m in parse_tar(tar)[0]
    ]
    layer = chunked_layer(tar)
    out = (
        [len(frame) for frame in inflate(layer.blob[: layer.toc_at.offset - 8])]
        if layer.toc_at
        else []
    )
    assert out == [512, 6, 1018, 6, 1018, 16, 2048, 16, 2016]
    entries = layer.toc["entries"]
    assert [entry["type"] for entry in entries] == [
        "reg",
        "reg",
        "reg",
        "chunk",
        "chunk",
        "hardlink",
    ]
    assert entries[3]["chunkType"] == "zeros"
    assert [json.loads(line).get("name") for line in layer.tar_split_json.splitlines()][1::2] == [
        "a",
        "b",
        "hole",
        "lnk",
    ]


# ── the format's laws ──

CONTENT = st.builds(
    lambda head, zeros, tail: head + bytes(zeros) + tail,
    st.binary(max_size=700),
    st.sampled_from([0, 1, 1023, 1024, 3000]),
    st.binary(max_size=700),
)
POSITION = {"manifest-checksum", "manifest-position"}
FILES = st.dictionaries(st.text("abc/é\u2028<", min_size=1, max_size=130), CONTENT, max_size=6)


@given(
    FILES,
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([every(100), every(512), never, rolling]),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_every_view_of_a_layer_gives_the_tar(
    files: dict[str, bytes], generation: Any, cut: Any, holes: bool
) -> None:
    tar = make_tar([Entry(name, data) for name, data in files.items()])
    layer = chunked_layer(tar, generation=generation, cut=cut, holes=holes)
    assert b"".join(inflate(layer.blob)) == tar
    for chunk in layer.chunks:
        data = b"".join(inflate(layer.blob[chunk.start : chunk.end]))
        assert (len(data), sha256(data)) == (chunk.usize, chunk.digest)
        assert not (chunk.zeros and any(data))

    spans = sorted([*layer.gaps, *((chunk.start, chunk.end) for chunk in layer.chunks)])
    assert layer.toc_at
    assert [0, *(end for _, end in spans)] == [
        *(start for start, _ in spans),
        layer.toc_at.offset - 8,
    ]

    assert inflate(cut_out(layer, layer.toc_at)) == [layer.toc_json]
    assert json.loads(layer.toc_json) == layer.toc
    if generation >= 3:
        assert inflate(cut_out(layer, layer.tar_split_at)) == [layer.tar_split_json]
        contents = iter(files.values())
        rebuilt = b""
        for line in layer.tar_split_json.splitlines():
            found = json.loads(line)
            rebuilt += base64.b64decode(found["payload"]) if found["type"] == 2 else next(contents)
        assert rebuilt == tar


@pytest.mark.parametrize(
    ("generation", "prefix", "names", "footer", "magic"),
    [
        (1, OLD_PREFIX, POSITION, 48, b"GnUlInUx"),
        (2, PREFIX, POSITION, 48, b"GnUlInUx"),
        (3, PREFIX, POSITION | {"tarsplit-position", "tarsplit-checksum"}, 72, b"GNUlInUx"),
        (4, PREFIX, POSITION | {"tarsplit-position"}, 72, b"GNUlInUx"),
    ],
)
def test_generations(
    generation: Any, prefix: str, names: set[str], footer: int, magic: bytes
) -> None:
    layer = chunked_layer(make_tar({"a": b"hello\n"}), generation=generation)
    assert layer.toc_at
    assert set(layer.annotations) == {prefix + name for name in names}
    assert layer.annotations[prefix + "manifest-checksum"] == sha256(cut_out(layer, layer.toc_at))
    assert ("tarSplitDigest" in layer.toc) == (generation == 4)
    if generation == 3:
        assert layer.annotations[prefix + "tarsplit-checksum"] == sha256(
            cut_out(layer, layer.tar_split_at)
        )
    if generation == 4:
        assert layer.toc["tarSplitDigest"] == sha256(cut_out(layer, layer.tar_split_at))
    assert layer.blob[-footer:][:8] == b"\x50\x2a\x4d\x18" + struct.pack("<I", footer - 8)
    assert layer.blob.endswith(magic)
    offset, length, usize, kind = struct.unpack("<4Q", layer.blob[-footer:][8:40])
    assert (offset, length, usize, kind) == (
        layer.toc_at.offset,
        layer.toc_at.length,
        layer.toc_at.usize,
        1,
    )


def test_odd_ends() -> None:
    assert chunked_layer(b"").toc == {
        "version": 1,
        "entries": None,
        "tarSplitDigest": sha256(inflated_empty()),
    }
    assert chunked_layer(END_OF_ARCHIVE).toc["entries"] is None
    layer = chunked_layer(make_tar({"z": bytes(2048)}, end=b""), cut=never)
    assert EMPTY_FRAME * 2 in layer.blob, "one ends the hole, one precedes the TOC"
    assert "chunkType" not in layer.toc["entries"][0]
    tar = make_tar({"a": b""})
    with pytest.raises(ValueError, match="member type b'g'"):
        chunked_layer(tar[:156] + b"g" + tar[157:])


def inflated_empty() -> bytes:
    return zstandard.ZstdCompressor(
        level=3, write_checksum=True, write_content_size=False
    ).compress(b"")


def test_hooks_lie_consistently() -> None:
    def shrink(toc: Json) -> None:
        toc["entries"][0]["size"] = 1

    def skip(chunk: Chunk, frame: bytes) -> bytes:
        return b"\x50\x2a\x4d\x18\x03\0\0\0???" + frame

    def swap(lines: list[Json]) -> list[Json]:
        return lines[::-1]

    layer = chunked_layer(
        make_tar({"a": b"hello\n"}),
        edit_toc=shrink,
        edit_toc_json=lambda data: data + b" ",
        edit_tar_split=swap,
        edit_payload=skip,
        edit_annotations=lambda found: found | {"x": "y"},
    )
    assert layer.toc["entries"][0]["size"] == 1
    assert inflate(cut_out(layer, layer.toc_at)) == [layer.toc_json]
    assert layer.toc_json.endswith(b" ")
    assert layer.annotations[PREFIX + "manifest-checksum"] == sha256(cut_out(layer, layer.toc_at))
    assert layer.annotations["x"] == "y"
    assert json.loads(layer.tar_split_json.splitlines()[-1])["position"] == 0
    assert layer.toc["entries"][0]["endOffset"] == layer.chunks[0].end
    assert inflate(layer.blob[layer.chunks[0].start : layer.chunks[0].end]) == [b"hello\n"]


# ── sums and cuts ──


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"", "0" * 16),
        (b"123456789", "b90956c775a41001"),
        (b"hello world\n", base64.b64decode("ROnPP1cq2aw=").hex()),
    ],
)
def test_crc64_check_values(data: bytes, want: str) -> None:
    assert crc64(data).hex() == want


@given(st.binary(max_size=300))
def test_crc64_bit_by_bit(data: bytes) -> None:
    crc = (1 << 64) - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xD800000000000000 if crc & 1 else 0)
    assert crc64(data) == (crc ^ ((1 << 64) - 1)).to_bytes(8, "big")


def test_rolling_by_definition() -> None:
    """Also across the seam between the blocks it works in."""
    data = b"".join(
        hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range((1 << 20) // 32 + 4000)
    )
    ring, s1, s2, cuts = bytearray(64), 64 * 31, 64 * 63 * 31, []
    for at, byte in enumerate(data):
        old, ring[at % 64] = ring[at % 64], byte
        s1 += byte - old
        s2 += s1 - 64 * (old + 31)
        if s2 & 0xFFFF == 0xFFFF:
            cuts.append(at + 1)
    assert cuts
    assert rolling(data) == cuts


def test_holes_are_chunks_of_their_own() -> None:
    data = b"a" * 10 + bytes(1024) + b"b" * 10 + bytes(1023)
    assert pieces(data, every(500)) == [
        (0, 10, False),
        (10, 1034, True),
        (1034, 1500, False),
        (1500, 2000, False),
        (2000, 2067, False),
    ]
    assert pieces(data, never, holes=False) == [(0, len(data), False)]
    assert pieces(bytes(1024), never) == [(0, 1024, True), (1024, 1024, False)]
    assert pieces(b"x" * 20, every(10)) == [(0, 10, False), (10, 20, False), (20, 20, False)]


# ── tar ──


def test_the_standard_library_reads_what_we_write() -> None:
    long = "d/" * 80 + "é"
    entries = [
        Entry("d/", type="dir", mode=0o1755),
        Entry(long, b"x" * 513, uid=4_000_000_000, mtime="1700000000.125"),
        Entry("x", b"y", xattrs={"user.a": b"\x00\xff"}, pax={"comment": "c" * 90}),
        Entry("s", type="symlink", linkname="t" * 101),
        Entry("n", type="char", dev=(1, 3)),
        Entry(b"\xff", b"odd"),
    ]
    found = tarfile.open(fileobj=io.BytesIO(make_tar(entries))).getmembers()  # noqa: SIM115
    assert [member.name for member in found] == ["d", long, "x", "s", "n", "\udcff"]
    assert (found[1].size, found[1].uid, found[1].mtime) == (513, 4_000_000_000, 1700000000.125)
    assert (found[3].linkname, found[4].devminor) == ("t" * 101, 3)
    members = parse_tar(make_tar(entries))[0]
    assert members[2].xattrs == {"user.a": b"\x00\xff"}
    assert members[1].mtime == 1_700_000_000_125_000_000


def test_we_read_what_the_standard_library_writes() -> None:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            for name in ("a", "d" * 90 + "/" + "n" * 60):
                info = tarfile.TarInfo(name)
                info.size = 3
                tar.addfile(info, io.BytesIO(b"abc"))
        members, end, rest = parse_tar(file.getvalue())
        assert [(m.name, m.data) for m in members] == [
            (b"a", b"abc"),
            (b"d" * 90 + b"/" + b"n" * 60, b"abc"),
        ]
        parts = b"".join(member.header + member.data for member in members) + end + rest
        assert parts == file.getvalue()


# ── images ──


def test_images_and_layouts(tmp_path: Path) -> None:
    tar = make_tar({"d/": b"", "d/f": b"content\n" * 40})
    kinds = [chunked_layer(tar), gzip_layer(tar), zstd_layer(tar), tar_layer(tar)]
    assert len({layer.digest for layer in kinds}) == 4
    assert {layer.diff_id for layer in kinds} == {sha256(tar)}
    oci = image(kinds)
    docker = image([kinds[1]], media_type=DOCKER_MANIFEST, platform="linux/arm64/v8")
    both = index([docker, (oci, ZSTD_INSTANCE)], media_type=DOCKER_LIST)

    assert json.loads(oci.config)["rootfs"]["diff_ids"] == oci.diff_ids
    assert PREFIX + "manifest-checksum" in json.loads(oci.manifest)["layers"][0]["annotations"]
    assert "docker" in json.loads(docker.manifest)["layers"][0]["mediaType"]
    instances = json.loads(both.manifest)["manifests"]
    assert instances[0]["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8"}
    assert instances[1]["annotations"] == ZSTD_INSTANCE

    images = {"one": oci, "many": both}
    found = read_layout(write_layout(tmp_path / "layout", images))
    assert found == layout(images)
    assert found.tags == {"one": oci.digest, "many": both.digest}
    assert set(found.manifests) == {oci.digest, docker.digest, both.digest}


def test_a_layout_that_lies_is_not_read(tmp_path: Path) -> None:
    one = image([tar_layer(b"")])
    write_layout(tmp_path, {"one": one})
    (tmp_path / "blobs" / one.config_digest.replace(":", "/")).write_bytes(b"{}")
    with pytest.raises(AssertionError, match="something else"):
        read_layout(tmp_path)


@pytest.mark.parametrize("golden", all_golden(), ids=str)
def test_fixtures_hold_what_is_expected_of_them(golden: Golden) -> None:
    content = read_layout(golden.layout)
    expect = golden.expect
    if golden.is_index:
        assert content.tags[golden.tag] == expect["index"]["digest"]
        assert set(expect["choose"].values()) <= set(content.manifests)
        return
    assert content.tags[golden.tag] == expect["manifest"]["digest"]
    manifest = json.loads(content.manifests[expect["manifest"]["digest"]][1])
    assert [layer["digest"] for layer in manifest["layers"]] == [
        layer["digest"] for layer in golden.layers
    ]
    assert (
        json.loads(content.blobs[expect["config"]["digest"]])["rootfs"]["diff_ids"]
        == expect["diff_ids"]
    )
    if golden.verifiable:
        assert golden.rootfs
