"""Tables of contents that are no proper JSON, not for us, or odd and no harm.

Each signed as if it were true.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.helpers.build.front import (
    PREFIX,
    Entry,
    Image,
    Json,
    chunked_layer,
    every,
    image,
    make_tar,
    sha256,
)
from tests.helpers.harness.hostile import (
    CHUNK,
    COLD_AND_WARM,
    CONTENT,
    IN_PARTS,
    INTEGRITY,
    MALFORMED,
    SHARED,
    STARTS,
    Edit,
    bench,
    flips,
    lies_at,
    sets,
    victim,
)
from zchunked.errors import IntegrityError


def lying(edit: Callable[[Json], Json | None]) -> Image:
    return image([victim(edit_toc=edit)])


# ── rows 10 to 13: the bytes of the TOC ──


@pytest.mark.parametrize("start", [*IN_PARTS, "exact"])
def test_toc_of_another_digest_is_asked_for_twice_and_refused(tmp_path: Path, start: str) -> None:
    def edit(annotations: dict[str, str]) -> None:
        annotations[PREFIX + "manifest-checksum"] = sha256(b"another")

    layer = victim(edit_annotations=edit)
    assert layer.toc_at is not None
    with bench(tmp_path, start) as on:
        with pytest.raises(IntegrityError):
            on.pull(image([layer]))
        assert on.last is not None
        asked = [spans[0].start for digest, spans in on.last.asked if digest == layer.digest]
        # with or without its header
        frame = range(layer.toc_at.offset - 8, layer.toc_at.offset + 1)
        assert sum(at in frame for at in asked) == 2
        on.lies(image([layer]), INTEGRITY, "TOC of layer")


@pytest.mark.parametrize("start", STARTS)
def test_toc_damaged_on_its_way_is_asked_for_again(tmp_path: Path, start: str) -> None:
    content = image([victim()])
    layer, at = content.layers[0], content.layers[0].toc_at
    assert at is not None
    with bench(tmp_path, start) as on:
        outcome = on.pull(content, change=flips(layer.digest, range(at.offset, at.end), times=1))
        on.is_right(outcome, content)
        assert outcome.receipt.bytes.wasted >= at.length


def with_dictionary(data: bytes) -> bytes:
    frame = bytearray(
        zstandard.ZstdCompressor(write_content_size=False, write_checksum=False).compress(data)
    )
    assert frame[4] & 3 == 0
    frame[4] |= 3  # a dictionary's ID of four bytes follows the window's
    return bytes(frame[:6]) + b"\x07\x00\x00\x00" + bytes(frame[6:])


def wide_window(data: bytes) -> bytes:
    """A frame that makes its decoder set aside 2 GiB.

    A descriptor byte, the largest window byte, one raw block.
    """
    header = b"\x28\xb5\x2f\xfd" + bytes([0]) + bytes([(31 - 10) << 3])
    blocks = [data[at : at + (1 << 17)] for at in range(0, len(data), 1 << 17)]
    raw = [
        (len(block) << 3 | (block is blocks[-1])).to_bytes(3, "little") + block for block in blocks
    ]
    return header + b"".join(raw)


def unpacked(frame: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(frame)


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda frame: frame[:-1],
    "nothing of it": lambda frame: frame[:4],
    "trailing bytes": lambda frame: frame + b"more",
    "trailing zeros": lambda frame: frame + bytes(8),
    "wrong checksum": lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]),
    "dictionary needed": lambda frame: with_dictionary(unpacked(frame)),
    "window of 2 GiB": lambda frame: wide_window(unpacked(frame)),
    "not zstd": lambda frame: b"\x1f\x8b" + frame[2:],
    "claims another content size": lambda frame: zstandard.compress(unpacked(frame))[:4]
    + b"\xa0\xff\xff\xff\x00" + zstandard.compress(unpacked(frame))[6:],
    "bomb": lambda frame: zstandard.compress(bytes(64 << 20)),
    "one frame more": lambda frame: frame + zstandard.compress(b" "),
    "no frame but a skippable one": lambda frame: b"\x50\x2a\x4d\x18"
    + len(frame).to_bytes(4, "little") + frame,
}  # fmt: skip


@pytest.mark.parametrize("start", COLD_AND_WARM)
@pytest.mark.parametrize("edit", FRAMES.values(), ids=FRAMES)
def test_broken_toc_frame(tmp_path: Path, start: str, edit: Any) -> None:
    with bench(tmp_path, start) as on:
        on.lies(image([victim(edit_toc_frame=edit)]), MALFORMED)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("step", [-1, 1, 1000])
def test_toc_that_unpacks_to_another_size_than_claimed(
    tmp_path: Path, start: str, step: Any
) -> None:
    def edit(annotations: dict[str, str]) -> None:
        offset, length, usize, kind = annotations[PREFIX + "manifest-position"].split(":")
        annotations[PREFIX + "manifest-position"] = f"{offset}:{length}:{int(usize) + step}:{kind}"

    with bench(tmp_path, start) as on:
        on.lies(image([victim(edit_annotations=edit)]), MALFORMED)


TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "array": lambda text: b"[" + text + b"]",
    "null": lambda text: b"null",
    "number": lambda text: b"1",
    "nothing": lambda text: b"",
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "bad UTF-8": lambda text: text.replace(b"app.conf", b"app\xff\xfeon"),
    "bad UTF-8 in an unknown key": lambda text: text.replace(
        b'"version"', b'"\xc3\x28":1,"version"'
    ),
    "trailing value": lambda text: text + b"{}",
    "trailing brace": lambda text: text + b"}",
    "nesting bomb": lambda text: (
        b'{"version":1,"entries":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    ),
    "nesting bomb in an unknown key": lambda text: (
        b'{"x":' + b'{"x":' * 200_000 + b"1" + b"}" * 200_000 + b"," + text[1:]
    ),
    "NaN": lambda text: text.replace(b'"mode":493', b'"mode":NaN'),
    "Infinity": lambda text: text.replace(b'"mode":493', b'"mode":-Infinity'),
    "version twice": lambda text: b'{"version":1,' + text[1:],
    "version twice, escaped": lambda text: b'{"\\u0076ersion":2,' + text[1:],
    "entries twice": lambda text: text[:-1] + b',"entries":[]}',
    "tarSplitDigest twice": lambda text: text[:-1] + b',"tarSplitDigest":null}',
    "name twice": lambda text: text.replace(
        b'"name":"bin/app"', b'"name":"bin/sh","name":"bin/app"', 1
    ),
    "size twice": lambda text: text.replace(b'"size":60000', b'"size":1,"size":60000', 1),
    "size twice, escaped": lambda text: text.replace(
        b'"size":60000', b'"\\u0073ize":1,"size":60000', 1
    ),
    "unknown key twice": lambda text: text.replace(b'"size":60000', b'"x":1,"x":1,"size":60000', 1),
    "comment": lambda text: text.replace(b'"version":1', b'/* */"version":1'),
    "trailing comma": lambda text: text.replace(b'"version":1', b'"version":1,,'),
    "NUL behind": lambda text: text + b"\0",
    "cut short": lambda text: text[:-1],
    "entry that is no object": lambda text: text.replace(b'"entries":[', b'"entries":[1,', 1),
    "entries as an object": lambda text: b'{"version":1,"entries":{}}',
    "no version": lambda text: text.replace(b'"version":1,', b"", 1),
}


@pytest.mark.parametrize("start", COLD_AND_WARM)
@pytest.mark.parametrize("edit", TEXTS.values(), ids=TEXTS)
def test_toc_that_is_no_proper_json(tmp_path: Path, start: str, edit: Any) -> None:
    layer = victim(edit_toc_json=edit)
    assert layer.toc_json != victim().toc_json
    with bench(tmp_path, start) as on:
        on.lies(image([layer]), MALFORMED)


# ── what is merely not for us: rows 14, 17, 20, 25, 27 to 29 ──

WHOLE: dict[str, tuple[Edit, str]] = {
    "version 2": (lambda toc: toc.update(version=2), "version 2"),
    "version 0": (lambda toc: toc.update(version=0), "version 0"),
    "version -1": (lambda toc: toc.update(version=-1), "version"),
    "unknown type": (sets("lib", type="whiteout"), "type 'whiteout'"),
    "empty type": (sets("lib", type=""), "type ''"),
    "type that writes to the terminal": (sets("lib", type="\x1b[2J\n"), "type"),
    "unknown type of chunk": (sets("bin/app", 1, chunkType="rle"), "'rle'"),
    "no endOffset": (sets("bin/app", endOffset=...), "where files end"),
    "name twice": (sets("etc/copy.conf", name="etc/app.conf"), "twice"),
    "name twice after cleaning": (sets("etc/copy.conf", name="./etc//app.conf"), "twice"),
    "name twice by dots": (sets("etc/copy.conf", name="../etc/x/../app.conf"), "twice"),
    "directory and file": (sets("etc/copy.conf", name="etc"), "twice"),
    "NUL in a name": (sets("etc/copy.conf", name="etc/a\0b"), "NUL"),
    "lone surrogate in a name": (sets("etc/copy.conf", name="etc/\ud800"), "Unicode"),
    "name of 70 KB": (sets("etc/copy.conf", name="n" * 70_000), "longer"),
    "name of 70 KB in wide letters": (sets("etc/copy.conf", name="€" * 25_000), "longer"),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("edit", "words"), WHOLE.values(), ids=WHOLE)
def test_toc_that_is_not_for_us(tmp_path: Path, start: str, edit: Any, words: Any) -> None:
    with bench(tmp_path, start) as on:
        on.whole(lying(edit), words)


# ── what is odd and no harm ──

HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "unknown keys": lambda text: text.replace(
        b'"size":60000', b'"x":{"size":1},"size":60000'
    ).replace(b"{", b'{"y":[{}],', 1),
    "escaped letters": lambda text: text.replace(b"app.conf", b"\\u0061pp.conf"),
    "escaped keys": lambda text: text.replace(b'"size"', b'"\\u0073ize"'),
    "blanks": lambda text: json.dumps(json.loads(text), indent="\t").encode() + b"\r\n",
    "keys in another order": lambda text: json.dumps(json.loads(text), sort_keys=True).encode(),
    "quotes and colons in a name": lambda text: text.replace(
        b'"linkName":"usr/lib"', b'"linkName":"a\\":\\"b\\" :"'
    ),
    "nulls where Go would write none": lambda text: text.replace(
        b'"type":"dir"', b'"type":"dir","xattrs":null'
    ),
    "zeros spelt out": lambda text: text.replace(
        b'"type":"dir"', b'"type":"dir","size":0,"offset":0,"chunkSize":0,"digest":""'
    ),
    "empty file with the digest of nothing": lambda text: text.replace(
        b'"name":"var/empty"', b'"name":"var/empty","digest":"' + sha256(b"").encode() + b'"'
    ),
}


@pytest.mark.parametrize("start", IN_PARTS)
@pytest.mark.parametrize("edit", HARMLESS.values(), ids=HARMLESS)
def test_odd_but_harmless_json(tmp_path: Path, start: str, edit: Any) -> None:
    layer = victim(edit_toc_json=edit)
    assert layer.toc_json != victim().toc_json
    with bench(tmp_path, start) as on:
        on.partial(image([layer]))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("entries", [None, []])
def test_layer_of_nothing(tmp_path: Path, start: str, entries: Any) -> None:
    layer = chunked_layer(make_tar({}), edit_toc=lambda toc: toc.update(entries=entries))
    with bench(tmp_path, start) as on:
        on.is_right(on.pull(image([layer])), image([layer]))


@pytest.mark.parametrize("start", IN_PARTS)
@pytest.mark.parametrize(
    "name",
    [
        b"../../../../tmp/zpull-was-here",
        b"/etc/passwd",
        b"./a/../b",
        b"a\nb\x1b[2J",
        b"caf\xe9",
        b".wh..wh..opq",
    ],
)
def test_names_do_not_matter_to_the_tar(tmp_path: Path, start: str, name: Any) -> None:
    tar = make_tar(
        [Entry(name, CONTENT["bin/app"]), Entry("b/..", b"x"), Entry("c", b""), Entry("d", SHARED)]
    )
    with bench(tmp_path, start) as on:
        on.partial(image([chunked_layer(tar, cut=every(CHUNK))]))


@pytest.mark.parametrize("start", IN_PARTS)
def test_entries_in_another_order_than_the_tar(tmp_path: Path, start: str) -> None:
    def edit(toc: Json) -> None:
        groups: list[list[Any]] = []
        for entry in toc["entries"]:
            if entry["type"] == "chunk":
                groups[-1].append(entry)
            else:
                groups.append([entry])
        toc["entries"] = [entry for group in reversed(groups) for entry in group]

    with bench(tmp_path, start) as on:
        on.partial(lying(edit))
        on.partial(image([victim(edit_toc=edit, generation=2)]))


@pytest.mark.parametrize("start", IN_PARTS)
def test_equal_files_may_share_one_range(tmp_path: Path, start: str) -> None:
    with bench(tmp_path, start) as on:
        on.partial(lying(lies_at("etc/copy.conf", "etc/app.conf")))


def test_old_annotations_beside_new_ones_are_not_looked_at(tmp_path: Path) -> None:
    layer = victim()
    old = {key.replace("io.github.", "io."): "1:2:3:9" for key in layer.annotations}
    with bench(tmp_path, "warm") as on:
        on.partial(image([replace(layer, annotations=dict(layer.annotations) | old)]))
