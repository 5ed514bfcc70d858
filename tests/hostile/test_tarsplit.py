"""Tar-splits that lie, contradict the TOC or are no tar-splits, each signed as if it were true."""

from __future__ import annotations

import base64
from collections.abc import Callable
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
    crc64,
    every,
    image,
    make_tar,
    sha256,
)
from tests.helpers.harness.hostile import (
    CHUNK,
    CONTENT,
    IN_PARTS,
    INTEGRITY,
    MALFORMED,
    SECRET,
    SHARED,
    STARTS,
    bench,
    flips,
    sets,
    victim,
)
from zchunked.errors import FormatError
from zchunked.limits import Limits

POSITION, CHECKSUM = PREFIX + "tarsplit-position", PREFIX + "tarsplit-checksum"


# ── rows 30 and 31: who vouches for it ──


@pytest.mark.parametrize("start", STARTS)
def test_digest_in_the_toc_and_no_position(tmp_path: Path, start: str) -> None:
    layer = victim(
        edit_annotations=lambda marks: {
            key: value for key, value in marks.items() if key != POSITION
        }
    )
    with bench(tmp_path, start) as on:
        on.lies_for_good(image([layer]), MALFORMED, "no position")


@pytest.mark.parametrize("start", STARTS)
def test_tar_split_of_another_digest_is_asked_for_twice_and_refused(
    tmp_path: Path, start: str
) -> None:
    layer = victim(edit_toc=lambda toc: toc.update(tarSplitDigest=sha256(b"x")))
    with bench(tmp_path, start) as on:
        on.lies_for_good(image([layer]), INTEGRITY, "tar-split of layer")


@pytest.mark.parametrize("start", STARTS)
def test_annotation_vouches_for_another_tar_split(tmp_path: Path, start: str) -> None:
    layer = victim(
        generation=3, edit_annotations=lambda marks: marks.update({CHECKSUM: sha256(b"x")})
    )
    with bench(tmp_path, start) as on:
        on.lies_for_good(image([layer]), INTEGRITY, "tar-split of layer")


@pytest.mark.parametrize("start", IN_PARTS)
def test_annotation_that_contradicts_the_toc_is_not_believed(tmp_path: Path, start: str) -> None:
    layer = victim(edit_annotations=lambda marks: marks.update({CHECKSUM: sha256(b"x")}))
    with bench(tmp_path, start) as on:
        on.partial(image([layer]))


@pytest.mark.parametrize("start", IN_PARTS)
def test_tar_split_that_nobody_vouches_for_is_not_read(tmp_path: Path, start: str) -> None:
    def edit(toc: Json) -> None:
        del toc["tarSplitDigest"]

    layer = victim(edit_toc=edit, edit_tar_split_json=lambda text: b"no JSON")
    with bench(tmp_path, start) as on:
        # the lean way needs a tar-split, and of the exact way nothing is here
        if start == "metered":
            on.is_right(on.pull(image([layer])), image([layer]))
        else:
            on.partial(image([layer]))


@pytest.mark.parametrize("start", IN_PARTS)
@pytest.mark.parametrize("generation", [1, 2, 3, 4])
def test_every_generation_comes_in_parts(tmp_path: Path, start: str, generation: Any) -> None:
    content = image([victim(generation=generation)])
    with bench(tmp_path, start) as on:
        if start == "metered" and generation < 3:  # as above: they have no tar-split
            on.is_right(on.pull(content), content)
        else:
            on.partial(content)


@pytest.mark.parametrize("start", STARTS)
def test_tar_split_damaged_on_its_way_is_asked_for_again(tmp_path: Path, start: str) -> None:
    layer = victim()
    at = layer.tar_split_at
    assert at is not None
    with bench(tmp_path, start) as on:
        outcome = on.pull(
            image([layer]), change=flips(layer.digest, range(at.offset, at.end), times=1)
        )
        on.is_right(outcome, image([layer]))
        assert outcome.receipt.bytes.wasted >= at.length


# ── rows 32 to 34: what it says. A layer that comes whole has no use for it ──


def refused_in_parts(
    folder: Any, start: str, content: Image, exit_code: int = MALFORMED, words: str = ""
) -> None:
    with bench(folder, start) as on:
        if start == "cold":
            on.whole(content, "it costs little more than its parts")
        else:
            on.lies_for_good(content, exit_code, words)


def line(lines: list[Json], name: str) -> Json:
    return next(one for one in lines if one.get("name") == name)


def says(name: str, /, **values: object) -> Callable[[list[Json]], None]:
    def edit(lines: list[Json]) -> None:
        found = line(lines, name)
        found.update(values)
        for key in [key for key, value in values.items() if value is ...]:
            del found[key]

    return edit


def without(name: str) -> Callable[[list[Json]], list[Json]]:
    return lambda lines: [one for one in lines if one.get("name") != name]


def segment(lines: list[Json], payload: object) -> None:
    next(one for one in lines if one["type"] == 2)["payload"] = payload


WRONG_CRC = base64.b64encode(crc64(b"x")).decode()
LINES: dict[str, Callable[[list[Json]], list[Json] | None]] = {
    "unknown type of line": lambda lines: lines.append({"type": 3, "payload": "AAAA"}),
    "line of type 0": lambda lines: lines.insert(0, {"type": 0}),
    "no type": says("lib", type=...),
    "type is text": says("lib", type="1"),
    "type is true": says("lib", type=True),
    "names a file the TOC has not": says("etc/app.conf", name="etc/shadow"),
    "names a link the TOC has not": says("lib", name="lib64"),
    "one file more": lambda lines: lines.append({"type": 1, "name": "etc/shadow", "payload": None}),
    "file without a name": says("lib", name=...),
    "leaves a file out": without("etc/app.conf"),
    "leaves an empty file out": without("var/empty"),
    "leaves a link out": without("hard"),
    "leaves all out": lambda lines: [one for one in lines if one["type"] == 2],
    "names a file twice": lambda lines: lines.append(dict(line(lines, "etc/app.conf"))),
    "names a directory twice": lambda lines: lines.insert(0, dict(line(lines, "etc/"))),
    "size is less": says("bin/app", size=59_999),
    "size is more": says("bin/app", size=1 << 40),
    "no size": says("bin/app", size=...),
    "size is negative": says("bin/app", size=-1),
    "size is 2^63": says("bin/app", size=1 << 63),
    "size is a float": says("bin/app", size=60000.5),
    "size is text": says("bin/app", size="60000"),
    "data where the TOC has none": says("var/empty", size=5, payload=WRONG_CRC),
    "CRC missing": says("bin/app", payload=...),
    "CRC null": says("bin/app", payload=None),
    "CRC of nothing": says("bin/app", payload=""),
    "CRC of seven bytes": says("bin/app", payload=base64.b64encode(bytes(7)).decode()),
    "CRC of nine bytes": says("bin/app", payload=base64.b64encode(bytes(9)).decode()),
    "base64 of another alphabet": lambda lines: segment(lines, "__--"),
    "base64 without padding": lambda lines: segment(lines, "YQ"),
    "base64 with blanks": lambda lines: segment(lines, "YW Jj"),
    "base64 with a line end": lambda lines: segment(lines, "YWJj\n"),
    "base64 with junk behind": lambda lines: segment(lines, "YQ==YQ=="),
    "payload is a list": lambda lines: segment(lines, [1, 2]),
    "payload is a number": lambda lines: segment(lines, 5),
    "name_raw is no base64": says("lib", name_raw="!!!"),
    "name_raw of a file the TOC has not": lambda lines: lines.append(
        {"type": 1, "name_raw": "/w==", "payload": None}
    ),
    "name that writes to the terminal": says("lib", name="\x1b]0;owned\x07\n"),
}


@pytest.mark.parametrize("start", IN_PARTS)
@pytest.mark.parametrize("edit", LINES.values(), ids=LINES)
def test_line_of_the_tar_split_that_cannot_be(tmp_path: Path, start: str, edit: Any) -> None:
    refused_in_parts(tmp_path, start, image([victim(edit_tar_split=edit)]))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ["etc/app.conf", "bin/app", "shared"])
def test_wrong_crc(tmp_path: Path, start: str, name: Any) -> None:
    content = image([victim(edit_tar_split=says(name, payload=WRONG_CRC))])
    refused_in_parts(tmp_path, start, content, INTEGRITY, "checksum in the tar-split")


TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "no JSON": lambda text: b"no JSON",
    "array": lambda text: b"[" + text.replace(b"}\n{", b"},{") + b"]",
    "null": lambda text: b"null\n" + text,
    "number": lambda text: b"5\n" + text,
    "trailing junk": lambda text: text + b"}",
    "NUL": lambda text: text + b"\0",
    "cut short": lambda text: text[:-3],
    "nothing": lambda text: b"",
    "bad UTF-8": lambda text: text.replace(b"app.conf", b"app\xff\xfeon"),
    "nesting bomb": lambda text: (
        b'{"type":2,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n" + text
    ),
    "nesting bomb without end": lambda text: text + b"[" * 200_000,
    "endless line": lambda text: text + b'{"type":2,"payload":"' + b"A" * (6 << 20) + b'"}\n',
    "endless line without end": lambda text: text + b'{"type":2,"payload":"' + b"A" * (6 << 20),
}


@pytest.mark.parametrize("start", IN_PARTS)
@pytest.mark.parametrize("edit", TEXTS.values(), ids=TEXTS)
def test_tar_split_that_is_no_json(tmp_path: Path, start: str, edit: Any) -> None:
    refused_in_parts(tmp_path, start, image([victim(edit_tar_split_json=edit)]))


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda frame: frame[:-1],
    "trailing bytes": lambda frame: frame + b"more",
    "wrong checksum": lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]),
    "not zstd": lambda frame: b"\x1f\x8b" + frame[2:],
    "bomb": lambda frame: zstandard.compress(b"\n" * (64 << 20)),
    "bomb behind": lambda frame: frame + zstandard.compress(b"\n" * (64 << 20)),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("edit", FRAMES.values(), ids=FRAMES)
def test_broken_tar_split_frame(tmp_path: Path, start: str, edit: Any) -> None:
    refused_in_parts(tmp_path, start, image([victim(edit_tar_split_frame=edit)]))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("step", [-1, 1, 1000])
def test_tar_split_that_unpacks_to_another_size_than_claimed(
    tmp_path: Path, start: str, step: Any
) -> None:
    def edit(marks: dict[str, str]) -> None:
        offset, length, usize = marks[POSITION].split(":")
        marks[POSITION] = f"{offset}:{length}:{int(usize) + step}"

    content = image([victim(edit_annotations=edit)])
    refused_in_parts(tmp_path, start, content)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("generation", [2, 4])
def test_headers_that_make_a_tar_above_our_limit(
    tmp_path: Path, start: str, generation: Any
) -> None:
    """The files of the TOC are within it.

    The segments of the tar-split, or the header frames, take it further.
    """
    content = image([victim(generation=generation)])
    files = sum(len(data) for data in CONTENT.values()) + len(SHARED) + len(SECRET)
    with bench(tmp_path, start) as on:
        with pytest.raises(FormatError, match="the limit"):
            on.pull(content, limits=Limits(tar_bytes=files + 10), prove=True)
        on.has_nothing_of(content)
        on.is_right(on.pull(content, limits=Limits(tar_bytes=len(content.layers[0].tar))), content)


# ── what is odd and no harm: rows 29, 33, 35 ──

HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "blank lines": lambda text: text.replace(b"\n", b"\n\n"),
    "blanks": lambda text: text.replace(b',"', b' , "'),
    "no last line end": lambda text: text.rstrip(b"\n"),
    "carriage returns": lambda text: text.replace(b"\n", b"\r\n"),
    "positions that jump": lambda text: text.replace(b'"position":', b'"position":9'),
    "no positions": lambda text: text.replace(b'"position":', b'"x":'),
    "unknown keys": lambda text: text.replace(b'{"type"', b'{"x":[{}],"type"'),
}


@pytest.mark.parametrize("start", IN_PARTS)
@pytest.mark.parametrize("edit", HARMLESS.values(), ids=HARMLESS)
def test_odd_but_harmless_lines(tmp_path: Path, start: str, edit: Any) -> None:
    with bench(tmp_path, start) as on:
        on.partial(image([victim(edit_tar_split_json=edit)]))


@pytest.mark.parametrize("start", IN_PARTS)
@pytest.mark.parametrize("kind", ["hardlink", "symlink", "dir"])
def test_link_whose_header_states_a_size(tmp_path: Path, start: str, kind: Any) -> None:
    tar = make_tar([
        Entry("a", CONTENT["bin/app"]),
        Entry("b", type=kind, linkname="a", header_size=60_000),
        Entry("c", SHARED),
    ])  # fmt: skip
    with bench(tmp_path, start) as on:
        on.partial(image([chunked_layer(tar, cut=every(CHUNK))]))


@pytest.mark.parametrize("start", IN_PARTS)
def test_name_that_is_not_utf8(tmp_path: Path, start: str) -> None:
    tar = make_tar(
        [Entry(b"caf\xe9", CONTENT["bin/app"]), Entry(b"caf\xe9s/\xff", b"x"), Entry("c", SHARED)]
    )
    with bench(tmp_path, start) as on:
        on.partial(image([chunked_layer(tar, cut=every(CHUNK))]))


@pytest.mark.parametrize("start", STARTS)
def test_names_that_the_toc_cannot_tell_apart(tmp_path: Path, start: str) -> None:
    """Both become U+FFFD there."""
    tar = make_tar(
        [Entry(b"caf\xe9", CONTENT["bin/app"]), Entry(b"caf\xe8", b"x"), Entry("c", SHARED)]
    )
    with bench(tmp_path, start) as on:
        on.whole(image([chunked_layer(tar, cut=every(CHUNK))]), "twice")


@pytest.mark.parametrize("start", IN_PARTS)
def test_content_under_swapped_names(tmp_path: Path, start: str) -> None:
    """The TOC calls a file by another's name.

    The tar-split's checksum tells, before any tar is whole.
    """
    edit = both_names("etc/app.conf", "bin/app")
    refused_in_parts(tmp_path, start, image([victim(edit_toc=edit)]))


def both_names(one: str, other: str) -> Callable[[Json], None]:
    def edit(toc: Json) -> None:
        names = {one: other, other: one}
        for entry in toc["entries"]:
            entry["name"] = names.get(entry["name"], entry["name"])

    return edit


@pytest.mark.parametrize("start", IN_PARTS)
def test_type_that_differs(tmp_path: Path, start: str) -> None:
    """To the TOC a file is a directory: its content is missing then."""
    edit = sets("etc/app.conf", type="dir")
    refused_in_parts(tmp_path, start, image([victim(edit_toc=edit)]))
