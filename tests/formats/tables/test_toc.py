"""The table of contents.

What writers say comes through, and nothing that contradicts itself does.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.reals import Real, reals
from tests.helpers.build.front import (
    Entry,
    Json,
    Layer,
    chunked_layer,
    dumps,
    every,
    make_tar,
    never,
    rolling,
    sha256,
)
from tests.helpers.build.mutants import brief, json_mutants, mutants
from zchunked.errors import FormatError, LimitError, UnsupportedLayerError
from zchunked.formats.tables.toc import Toc
from zchunked.formats.tables.toc_json import EntryReader
from zchunked.formats.tables.toc_parser import TocParser, parse_toc
from zchunked.limits import Limits
from zchunked.oci.digest import EMPTY, from_raw

FILES = {
    "etc/": b"",
    "etc/hello": b"hello\n",
    "etc/copy": b"hello\n",
    "empty": b"",
    "big": bytes(range(256)) * 40,
    "hole": b"X" * 16 + bytes(2048) + b"Y" * 16,
    "zeros": bytes(3000),
}
LAYER = chunked_layer(make_tar(FILES), cut=every(2500))
assert LAYER.toc_at is not None
TOC_START = LAYER.toc_at.offset


def entry(toc: Json, name: str, number: int = 0) -> Json:
    """The n-th entry of that name: 0 is the file, what follows are its chunks."""
    found: list[Json] = [one for one in toc["entries"] if one["name"] == name]
    return found[number]


def edited(edit: Callable[[Json], object]) -> bytes:
    toc = json.loads(LAYER.toc_json)
    edit(toc)
    return dumps(toc)


def parse(data: bytes, limits: Limits | None = None) -> Toc:
    return parse_toc(data, TOC_START, limits or Limits())


def chunks_of(toc: Toc) -> list[tuple[str, int, int, str, int, int]]:
    """(file, offset in it, size, digest, start, end) of every chunk in TOC order."""
    found = []
    for number, name in enumerate(toc.names):
        at = 0
        for chunk in range(toc.first[number], toc.first[number + 1]):
            size, digest = toc.chunk_sizes[chunk], from_raw(toc.digests[chunk])
            found.append((name, at, size, str(digest), toc.starts[chunk], toc.ends[chunk]))
            at += size
    return found


# ── what is true comes through ──


@given(
    st.dictionaries(
        st.text("abcdé/._", min_size=1, max_size=8).map(lambda name: "f" + name.replace("/", "_")),
        st.binary(max_size=300)
        | st.integers(0, 5000).map(bytes)
        | st.integers(1, 9000).map(lambda n: b"\1\2\3" * n),
        max_size=6,
    ),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([never, rolling, every(100), every(1000)]),
)
def test_the_columns_say_where_every_chunk_really_lies(
    files: dict[str, bytes], generation: Any, cut: Any
) -> None:
    layer = chunked_layer(make_tar(files), generation=generation, cut=cut)
    assert layer.toc_at is not None
    toc = parse_toc(layer.toc_json, layer.toc_at.offset)
    assert toc.names == list(files)
    assert list(toc.sizes) == [len(data) for data in files.values()]
    assert chunks_of(toc) == [
        (c.file, c.at, c.usize, c.digest, c.start, c.end) for c in layer.chunks
    ]
    for chunk, truth in enumerate(layer.chunks):
        if truth.zeros:
            assert toc.holes[chunk]
        if toc.holes[chunk]:
            assert sha256(bytes(truth.usize)) == truth.digest
    several = {
        number for number in range(len(files)) if toc.first[number + 1] - toc.first[number] > 1
    }
    assert {number: from_raw(digest) for number, digest in toc.file_digests.items()} == {
        number: sha256(list(files.values())[number]) for number in several
    }
    assert (toc.tarsplit_digest is not None) == (generation == 4)


@pytest.mark.parametrize(
    "real", [real for real in reals() if "pax-sparse" not in real.name], ids=str
)
def test_the_tables_of_real_writers(real: Real) -> None:
    toc, want = real.toc, real.truths["chunks"]
    found = sorted(chunks_of(toc), key=lambda row: row[4])
    assert [row[1:] for row in found] == [
        (c["at"], c["usize"], c["digest"], c["start"], c["end"]) for c in want
    ]
    assert len(toc.names) == real.truths["entry_count"]
    by_start = {toc.starts[chunk]: toc.holes[chunk] for chunk in range(len(toc.starts))}
    assert all(by_start[chunk["start"]] for chunk in want if chunk.get("zeros"))


def test_entries_in_another_order_than_the_blob_are_sorted_by_their_place() -> None:
    toc = parse(edited(lambda toc: toc["entries"].sort(key=lambda one: one["name"])))
    names = list(dict.fromkeys(row[0] for row in sorted(chunks_of(toc), key=lambda row: row[4])))
    assert names == ["etc/hello", "etc/copy", "big", "hole", "zeros"]


@pytest.mark.parametrize("entries", [b"null", b"[]"])
def test_an_empty_layer_has_an_empty_table(entries: bytes) -> None:
    toc = parse(b'{"version":1,"entries":' + entries + b"}")
    assert (toc.names, list(toc.starts), toc.tarsplit_digest) == ([], [], None)


def test_chunks_that_are_marked_as_zeros_once_are_holes_wherever_they_occur() -> None:
    toc = parse(LAYER.toc_json)
    sizes = {toc.names[number]: toc.first[number] for number in range(len(toc.names))}
    assert toc.holes[sizes["hole"] + 1]
    assert not toc.holes[sizes["zeros"]], (
        "nothing says so: its digest is that of 3000 zeros, which no hole has"
    )


@pytest.mark.parametrize("edit", [
    lambda toc: toc.update(unknown={"a": [1, 2]}),
    lambda toc: entry(toc, "etc/hello").update(unknown="x"),
    # writers before 1.38
    lambda toc: entry(toc, "etc/hello").update(chunkDigest=entry(toc, "etc/hello")["digest"]),
    lambda toc: entry(toc, "empty").update(digest=EMPTY, offset=0, endOffset=0),
    lambda toc: entry(toc, "etc/").update(size=4096),  # a header may say so; no payload follows
    lambda toc: entry(toc, "etc/hello").update(name='quo"te": "x', linkName='":":'),
    lambda toc: entry(toc, "etc/hello").update(name="../../etc/passwd"),
    lambda toc: entry(toc, "etc/hello").update(chunkSize=0, chunkType=""),
    lambda toc: toc.pop("tarSplitDigest"),
    lambda toc: toc.update(tarSplitDigest=None),
])  # fmt: skip
def test_what_writers_may_do(edit: Callable[[Json], object]) -> None:
    assert list(parse(edited(edit)).sizes) == list(parse(LAYER.toc_json).sizes)


@pytest.mark.parametrize("text", [
    b'{"version":1,"entries":[{"type":"dir","name":"a\\u0022:b"}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"a\\":b"}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"a\\" :b"}]}',
    b'{ "version" : 1 ,\n"entries"\t:\r[ { "type" : "dir" , "name" : "\\u0061\\u003a" } ] }\n',
])  # fmt: skip
def test_any_legal_spelling_of_json_is_read(text: bytes) -> None:
    assert len(parse(text).names) == 1


# ── what is not, does not ──

LIES: dict[str, Callable[[Json], object]] = {
    "no version": lambda toc: toc.pop("version"),
    "chunk without a file": lambda toc: toc["entries"].insert(
        0, {"type": "chunk", "name": "x", "offset": 9}
    ),
    "chunk after a directory": lambda toc: toc["entries"].insert(
        1, {"type": "chunk", "name": "etc/", "offset": 9}
    ),
    "chunk of another file": lambda toc: entry(toc, "hole", 1).update(name="big"),
    "no name": lambda toc: entry(toc, "etc/hello").pop("name"),
    "gap between chunks": lambda toc: entry(toc, "big", 1).update(chunkOffset=2501),
    "overlap of chunks": lambda toc: entry(toc, "big", 1).update(chunkOffset=2499),
    "chunks too short": lambda toc: entry(toc, "big").update(size=10241),
    "chunks too long": lambda toc: entry(toc, "big").update(size=10239),
    "empty chunk": lambda toc: entry(toc, "hole", 1).update(chunkSize=0),
    "ends before it starts": lambda toc: entry(toc, "etc/hello").update(endOffset=1),
    "ends where it starts": lambda toc: entry(toc, "etc/hello").update(
        endOffset=entry(toc, "etc/hello")["offset"]
    ),
    "starts at nothing": lambda toc: entry(toc, "etc/hello").update(offset=0),
    "no offset": lambda toc: entry(toc, "etc/hello").pop("offset"),
    "chunks backwards": lambda toc: entry(toc, "hole", 1).update(
        offset=entry(toc, "hole")["offset"]
    ),
    "reaches into the table": lambda toc: entry(toc, "zeros").update(endOffset=TOC_START - 7),
    "reaches out of the world": lambda toc: entry(toc, "zeros").update(endOffset=2**63 - 1),
    "overlaps another file": lambda toc: entry(toc, "etc/hello").update(
        endOffset=entry(toc, "etc/copy")["offset"] + 1
    ),
    "no digest": lambda toc: entry(toc, "etc/hello").pop("digest"),
    "no digest of a chunk": lambda toc: entry(toc, "hole", 1).pop("chunkDigest"),
    "digest as path": lambda toc: entry(toc, "etc/hello").update(digest="../../etc/passwd"),
    "chunk digest as path": lambda toc: entry(toc, "hole", 1).update(chunkDigest="/etc/passwd"),
    "file digest as path": lambda toc: entry(toc, "hole").update(digest="sha256:" + "/" * 64),
    "tar-split digest as path": lambda toc: toc.update(tarSplitDigest="../x"),
    "digest in upper case": lambda toc: entry(toc, "etc/hello").update(
        digest=sha256(b"hello\n").upper()
    ),
    "two digests for one chunk": lambda toc: entry(toc, "etc/hello").update(chunkDigest=EMPTY),
    "one digest, two sizes": lambda toc: entry(toc, "etc/hello").update(size=7),
    "digest of nothing": lambda toc: entry(toc, "zeros").update(digest=EMPTY),
    "hole of other bytes": lambda toc: entry(toc, "hole").update(chunkType="zeros"),
    "empty file with a payload": lambda toc: entry(toc, "empty").update(offset=10, endOffset=20),
    "empty file with a digest": lambda toc: entry(toc, "empty").update(digest=sha256(b"x")),
    "empty file with chunks": lambda toc: toc["entries"].insert(
        4, {"type": "chunk", "name": "empty", "offset": 9}
    ),
    "negative size": lambda toc: entry(toc, "etc/hello").update(size=-6),
    "fractional size": lambda toc: entry(toc, "etc/hello").update(size=6.5),
    "size as text": lambda toc: entry(toc, "etc/hello").update(size="6"),
    "size as truth": lambda toc: entry(toc, "etc/hello").update(size=True),
    "size above 63 bits": lambda toc: entry(toc, "etc/hello").update(size=2**63),
    "name as number": lambda toc: entry(toc, "etc/hello").update(name=5),
    "uid as text": lambda toc: entry(toc, "etc/hello").update(uid="root"),
    "xattrs as list": lambda toc: entry(toc, "etc/hello").update(xattrs=[]),
    "a list as entry": lambda toc: toc["entries"].append([]),
    "an entry without type": lambda toc: toc["entries"].append({"name": "x"}),
    "entries as object": lambda toc: toc.update(entries={}),
    "version as text": lambda toc: toc.update(version="1"),
    "version as fraction": lambda toc: toc.update(version=1.5),
}


@pytest.mark.parametrize("edit", LIES.values(), ids=list(LIES))
def test_a_table_that_contradicts_itself_is_refused(edit: Callable[[Json], object]) -> None:
    with pytest.raises(FormatError):
        parse(edited(edit))


ODD: dict[str, Callable[[Json], object]] = {
    "another version": lambda toc: toc.update(version=2),
    "a version of thirty digits": lambda toc: toc.update(version=10**30),
    "unknown type of entry": lambda toc: entry(toc, "etc/").update(type="socket"),
    "unknown type of chunk": lambda toc: entry(toc, "hole", 1).update(chunkType="random"),
    "no end (stargz)": lambda toc: entry(toc, "etc/hello").pop("endOffset"),
    "a name twice": lambda toc: entry(toc, "etc/copy").update(name="etc/hello"),
    "a name twice after cleaning": lambda toc: entry(toc, "etc/copy").update(
        name="./etc//x/../hello"
    ),
    "a directory that is a file, too": lambda toc: entry(toc, "etc/").update(name="etc/hello/"),
    "NUL in a name": lambda toc: entry(toc, "etc/").update(name="a\0b"),
    "half a surrogate in a name": lambda toc: entry(toc, "etc/").update(name="a\udc80"),
    "a name of 64 KiB": lambda toc: entry(toc, "etc/").update(name="é" * 33_000),
}


@pytest.mark.parametrize("edit", ODD.values(), ids=list(ODD))
def test_a_table_that_we_cannot_use_says_why(edit: Callable[[Json], object]) -> None:
    with pytest.raises(UnsupportedLayerError):
        parse(edited(edit))


TWICE = [
    b'{"version":1,"version":1,"entries":[]}',
    b'{"version":2,"entries":[],"version":1}',
    b'{"version":1,"entries":null,"entries":[]}',
    b'{"version":1,"entries":[],"x":1,"x":2}',
    b'{"version":1,"entries":[],"x" :1,"x":"\\":"}',
    b'{"version":1,"entries":[{"type":"dir","name":"a","name":"b"}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"a"},{"type":"dir","name":"b","mode":1,"mode":1}]}',
    b'{"version":1,"entries":[{"type":"dir","name" :"a","name":"b"}]}',
    b'{"version":1,"entries":[{"type" :"dir","name":"a","name":"b"}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"a","x"\t:1,"x"\n:2}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"a","xattrs":{"k"\n:"","k":""}}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"x\\u0022:","mode":1,"mode":2}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"x\\"\\u003a","mode":1,"mode":2}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"x\\u0022\\u003a","mode":1,"mode":2}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"\\u0022:\\u0022:","mode":1,"mode":2,"mode":3}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"a","xattrs":{"x":"","x":""}}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"a","x":{"y":1,"y":2}}]}',
    b'{"version":1,"entries":[{"type":"dir","name":"a","\\u006eame":"b"}]}',
]


@pytest.mark.parametrize("text", TWICE)
def test_a_key_that_stands_twice_reads_differently_elsewhere_and_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match="a key twice"):
        parse(text)


@st.composite
def doubled(draw: st.DrawFn) -> bytes:
    """An entry of which one key stands twice, under a name that does its best to hide it."""
    name = draw(st.text('":\\ a\té', max_size=8))
    escaped = draw(st.booleans())
    text = json.dumps(
        {"type": "dir", "name": "n" + name, "mode": 1}, ensure_ascii=draw(st.booleans())
    )
    if escaped:
        text = text.replace('\\"', "\\u0022").replace("n:", "n\\u003a")
    blank = draw(st.sampled_from(["", " ", "\n\t"]))
    text = text.replace('"mode":', f'"mode"{blank}:', draw(st.integers(0, 1)))
    return b'{"version":1,"entries":[' + text[:-1].encode() + b',"mode":2}]}'


@given(doubled())
def test_no_name_hides_a_key_that_stands_twice(text: bytes) -> None:
    with pytest.raises(FormatError):
        parse(text)


BROKEN = [
    b"", b"null", b"[]", b"1", b"{", b'{"version":1,"entries":[]', b'{"version":1,"entries":[]}x',
    b'{"version":1}{"version":1}',
    b'{"version":1,"entries":[NaN]}', b'{"version":1,"entries":[{"type":"dir","name":"\xff"}]}',
        b"[" * 100_000,
    b'{"version":1,"entries":[' + b'{"x":' * 20_000, b'{"version":1,"entries":' + b"9" * 10_000 +
        b"}",
    b'{"version":01,"entries":[]}',
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_table_at_all_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        parse(text)


def test_numbers_above_our_limits_stop_before_they_cost_anything() -> None:
    with pytest.raises(LimitError):
        parse(LAYER.toc_json, Limits(toc_bytes=100))
    with pytest.raises(UnsupportedLayerError, match="the limit is 3"):
        parse(LAYER.toc_json, Limits(entries_count=3))
    with pytest.raises(LimitError):
        parse(LAYER.toc_json, Limits(tar_bytes=10_000))
    with pytest.raises(LimitError):
        parse(edited(lambda toc: entry(toc, "zeros").update(size=2**62)))


TABLE = json.loads(LAYER.toc_json)
G1 = chunked_layer(
    make_tar({"a": b"hello\n", "b/": b"", "c": b"x" * 3000}), generation=1, cut=every(1000)
)
STARTS = st.integers(0, TOC_START + 100) | st.integers(0, 2**63)


def check_sound(toc: Toc, toc_start: int) -> None:
    """What everything above relies on without looking again."""
    chunks = len(toc.starts)
    assert len(toc.names) == len(toc.sizes) == len(toc.first) - 1
    assert (
        chunks
        == len(toc.ends)
        == len(toc.chunk_sizes)
        == len(toc.digests)
        == len(toc.holes)
        == toc.first[-1]
    )
    assert all(
        0 < start < end <= toc_start - 8 for start, end in zip(toc.starts, toc.ends, strict=True)
    )
    assert all(size > 0 for size in toc.chunk_sizes)
    assert all(len(digest) == 32 for digest in toc.digests)
    for number, size in enumerate(toc.sizes):
        group = range(toc.first[number], toc.first[number + 1])
        assert sum(toc.chunk_sizes[chunk] for chunk in group) == size
        assert (number in toc.file_digests) == (len(group) > 1)
    spans = sorted(set(zip(toc.starts, toc.ends, strict=True)))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


@given(st.one_of(
    st.binary(), mutants(LAYER.toc_json), mutants(G1.toc_json), json_mutants(TABLE).map(dumps),
    json_mutants(TABLE["entries"]).map(lambda entries: dumps({"version": 1, "entries": entries})),
), STARTS)  # fmt: skip
def test_whatever_the_bytes_a_sound_table_or_one_of_two_errors(data: bytes, toc_start: int) -> None:
    try:
        toc = parse_toc(data, toc_start)
    except (FormatError, UnsupportedLayerError) as error:
        brief(error)
        return
    check_sound(toc, toc_start)


def columns(toc: Toc) -> list[object]:
    return [getattr(toc, field.name) for field in fields(toc)]


def in_pieces(data: bytes, toc_start: int, step: int, batch_bytes: int) -> Toc:
    parser = TocParser(toc_start, batch_bytes=batch_bytes)
    for at in range(0, len(data), step):
        parser.feed(data[at : at + step])
    return parser.finish()


SPACED = json.dumps(TABLE).encode()
ODD_NAMES = dumps(
    {
        **TABLE,
        "entries": [*TABLE["entries"], {"type": "dir", "name": 'a},{"/'}, *TABLE["entries"][2:3]],
    }
)
OTHER_ORDER = dumps({"entries": TABLE["entries"], "version": 1})


@given(st.one_of(
    st.sampled_from([LAYER.toc_json, SPACED, ODD_NAMES, OTHER_ORDER]),
    mutants(LAYER.toc_json), mutants(ODD_NAMES), json_mutants(TABLE).map(dumps),
), st.integers(1, 4000), st.integers(1, 3000))  # fmt: skip
def test_however_the_text_is_cut_the_table_is_the_same(
    data: bytes, step: int, batch_bytes: int
) -> None:
    try:
        want = columns(parse(data))
    except (FormatError, UnsupportedLayerError):
        with pytest.raises((FormatError, UnsupportedLayerError)):
            in_pieces(data, TOC_START, step, batch_bytes)
    else:
        assert columns(in_pieces(data, TOC_START, step, batch_bytes)) == want


def test_entries_are_taken_as_they_come_and_their_text_dropped() -> None:
    data = dumps(
        {"version": 1, "entries": [{"type": "dir", "name": f"d{number}"} for number in range(500)]}
    )
    reader = EntryReader(batch_bytes=1000)
    batches = [reader.feed(data[at : at + 500]) for at in range(0, len(data), 500)]
    came = [len(batch.entries) for batch in batches if batch]
    assert len(came) > 10
    assert len(reader.finish()[1]) == 500 - sum(came) < 50


@pytest.mark.parametrize("end", [
    b',"entries":[]}', b',"version":1}', b',"entries":null}', b"}}", b"]}", b"},{}", b"", b",}",
])  # fmt: skip
def test_what_stands_behind_the_entries_is_judged_though_they_are_gone(end: bytes) -> None:
    data = LAYER.toc_json[: LAYER.toc_json.rindex(b"]") + 1] + end
    with pytest.raises(FormatError):
        in_pieces(data, TOC_START, 500, 1000)


def test_a_key_twice_in_an_entry_that_is_gone_was_noticed() -> None:
    data = LAYER.toc_json.replace(b'"name":"etc/hello"', b'"name":"other","name":"etc/hello"', 1)
    in_pieces(LAYER.toc_json, TOC_START, 100, 300)
    with pytest.raises(FormatError, match="key twice"):
        in_pieces(data, TOC_START, 100, 300)


def test_text_that_cannot_be_taken_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def none_of_it(text: bytes) -> None:
        tried.append(len(text))

    monkeypatch.setattr("zchunked.formats.tables.toc_json._batch", none_of_it)
    reader = EntryReader(batch_bytes=1000)
    assert not any(
        reader.feed(LAYER.toc_json[at : at + 10]) for at in range(0, len(LAYER.toc_json), 10)
    )
    assert len(tried) <= 1
    assert len(reader.finish()[1]) == len(TABLE["entries"])


@pytest.mark.parametrize("at", range(1, 6))
def test_the_bytes_of_all_files_are_limited_wherever_a_batch_ends(at: int) -> None:
    """A file may stay open at the end of a batch: its chunks could follow."""
    entries: list[Json] = [{"type": "dir", "name": f"d{number}"} for number in range(6)]
    entries[at:at] = [
        {
            "type": "reg",
            "name": "f",
            "size": 2**60,
            "digest": sha256(b""),
            "offset": 9,
            "endOffset": 20,
        }
        | {"chunkType": "zeros", "chunkDigest": sha256(b"")}
    ]
    data = dumps({"version": 1, "entries": entries})
    for batch_bytes in range(60, 400, 7):
        with pytest.raises(LimitError):
            in_pieces(data, TOC_START, 10, batch_bytes)


def test_the_number_of_entries_is_limited_as_they_come() -> None:
    limits = Limits(entries_count=3)
    parser = TocParser(TOC_START, limits, batch_bytes=1000)
    with pytest.raises(UnsupportedLayerError, match="the limit is 3"):
        parser.feed(LAYER.toc_json)


@pytest.mark.parametrize("real", reals(), ids=str)
def test_real_tables_are_sound(real: Real) -> None:
    check_sound(real.toc, real.location.toc.span.start)


def test_links_and_devices_have_no_payload_whatever_their_headers_say() -> None:
    members = [
        Entry("a", b"hello\n"),
        Entry("l", type="hardlink", linkname="a", header_size=6),
        Entry("s", type="symlink", linkname="a"),
    ]
    layer: Layer = chunked_layer(make_tar(members))
    assert layer.toc_at is not None
    assert list(parse_toc(layer.toc_json, layer.toc_at.offset).sizes) == [6, 0, 0]
