"""The recipe: TOC joined with the tar-split is the tar and nothing else."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterable
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
    crc64,
    every,
    make_tar,
    never,
    rolling,
)
from zchunked.errors import FormatError
from zchunked.formats.frames import zstd as frames
from zchunked.formats.tables.toc import Toc
from zchunked.formats.tables.toc_parser import parse_toc
from zchunked.formats.tars.tar_recipe import Steps, from_tarsplit
from zchunked.formats.tars.tarsplit import parse_lines
from zchunked.oci.digest import digest_of

FILES = {"etc/": b"", "etc/a": b"hello\n", "etc/b": b"x" * 3000, "empty": b"", "c": b"hello\n"}
MEMBERS = [
    *(Entry(name, data) for name, data in FILES.items() if name[-1] != "/"),
    Entry("l", type="hardlink", linkname="etc/a"),
]


def toc_of(layer: Layer) -> Toc:
    assert layer.toc_at is not None
    return parse_toc(layer.toc_json, layer.toc_at.offset)


def emit(batches: Iterable[Steps], toc: Toc, blob: bytes) -> bytes:
    """The tar, with every payload taken from the blob."""
    out = []
    for steps, crcs in batches:
        sums = iter(crcs)
        for step in steps:
            if isinstance(step, bytes):
                out.append(step)
                continue
            first, last = toc.first[step], toc.first[step + 1] - 1
            data = b"".join(frames.stream([blob[toc.starts[first] : toc.ends[last]]]))
            assert int.from_bytes(crc64(data), "big") == next(sums)
            out.append(data)
        assert next(sums, None) is None
    return b"".join(out)


def by_tarsplit(layer: Layer) -> bytes:
    return emit(
        from_tarsplit(toc_of(layer), parse_lines([layer.tar_split_json])), toc_of(layer), layer.blob
    )


CONTENTS = (
    st.binary(max_size=200)
    | st.integers(0, 5000).map(bytes)
    | st.integers(1, 3000).map(lambda n: b"\1\2\3" * n)
)
NAMES = st.text("abé", min_size=1, max_size=6)


@given(
    st.dictionaries(NAMES, CONTENTS, max_size=6),
    st.sampled_from([never, rolling, every(100), every(1000)]),
)
def test_the_recipe_gives_the_tar(files: dict[str, bytes], cut: Any) -> None:
    layer = chunked_layer(make_tar(files), cut=cut)
    assert by_tarsplit(layer) == layer.tar


@pytest.mark.parametrize(
    "real", [real for real in reals() if real.location.tarsplit and real.sound], ids=str
)
def test_real_layers(real: Real) -> None:
    steps = from_tarsplit(real.toc, parse_lines([real.tarsplit_text]))
    assert digest_of(emit(steps, real.toc, real.blob)) == real.truths["diff_id"]


def test_a_table_in_another_order_is_joined_by_name() -> None:
    layer = chunked_layer(
        make_tar(MEMBERS), cut=never, edit_toc=lambda toc: toc["entries"].reverse()
    )
    assert by_tarsplit(layer) == layer.tar


def test_an_order_that_was_lost_stays_lost() -> None:
    """Though a later batch begins with the name that the table has next."""
    layer = chunked_layer(
        make_tar({"a": b"1", "b": b"2", "c": b"3"}),
        edit_toc=lambda toc: toc["entries"].insert(0, toc["entries"].pop(1)),
    )
    lines = [[line] for batch in parse_lines([layer.tar_split_json]) for line in batch]
    assert emit(from_tarsplit(toc_of(layer), lines), toc_of(layer), layer.blob) == layer.tar


def test_names_that_are_not_unicode_are_joined_by_their_place() -> None:
    layer = chunked_layer(
        make_tar(
            [
                Entry(b"caf\xe9", b"one"),
                Entry(b"caf\xe8", b"two", mode=0o600),
                Entry("x", b"three"),
            ][::2]
        )
    )
    assert by_tarsplit(layer) == layer.tar


def test_a_link_whose_header_states_a_size_has_no_content() -> None:
    layer = chunked_layer(
        make_tar([Entry("a", b"hello\n"), Entry("l", type="hardlink", linkname="a", header_size=6)])
    )

    def as_real_writers(lines: list[Json]) -> None:
        link = next(line for line in lines if line.get("name") == "l")
        link.update(size=6, payload=base64.b64encode(bytes(8)).decode())

    layer = chunked_layer(layer.tar, edit_tar_split=as_real_writers)
    assert by_tarsplit(layer) == layer.tar


def line(lines: list[Json], name: str) -> Json:
    return next(one for one in lines if one.get("name") == name)


def disorder(lines: list[Json]) -> None:
    lines.append(dict(line(lines, "c")))
    line(lines, "etc/a").update(name="c")
    line(lines, "etc/b").update(name_raw="4A==")


LIES: dict[str, tuple[Callable[[list[Json]], object], str]] = {
    "a file more": (
        lambda lines: lines.append(line(lines, "c") | {"name": "more"}),
        "which the TOC does not list",
    ),
    "a file less": (
        lambda lines: lines.remove(line(lines, "c")),
        "the tar-split names 4 of them|which the TOC does not list",
    ),
    "the last file less": (
        lambda lines: lines.remove(line(lines, "l")),
        "the tar-split names 4 of them",
    ),
    "a file twice": (lambda lines: lines.insert(0, dict(line(lines, "c"))), "twice"),
    "another name": (
        lambda lines: line(lines, "c").update(name="d"),
        "which the TOC does not list",
    ),
    "no name": (lambda lines: line(lines, "c").pop("name"), "which the TOC does not list"),
    "a name that is not Unicode after a lost order": (disorder, "which the TOC does not list"),
    "more bytes": (
        lambda lines: line(lines, "c").update(size=7),
        "7 bytes in the tar-split and 6 in the TOC",
    ),
    "fewer bytes": (
        lambda lines: line(lines, "c").update(size=5),
        "5 bytes in the tar-split and 6 in the TOC",
    ),
    "no bytes": (
        lambda lines: line(lines, "c").pop("size"),
        "0 bytes in the tar-split and 6 in the TOC",
    ),
    "bytes of an empty file": (
        lambda lines: line(lines, "empty").update(
            size=3, payload=base64.b64encode(crc64(b"abc")).decode()
        ),
        "3 bytes in the tar-split and none in the TOC",
    ),
    "no checksum": (lambda lines: line(lines, "c").update(payload=None), "no checksum of 8 bytes"),
    "a short checksum": (
        lambda lines: line(lines, "c").update(payload="AAAA"),
        "no checksum of 8 bytes",
    ),
    "a line of type 3": (lambda lines: lines.insert(0, {"type": 3}), "a line of type 3"),
    "a line of type -1": (lambda lines: lines.insert(0, {"type": -1}), "a line of type -1"),
}


@pytest.mark.parametrize(("edit", "message"), LIES.values(), ids=list(LIES))
def test_a_tar_split_that_contradicts_the_table_is_refused(
    edit: Callable[[list[Json]], object], message: str
) -> None:
    def lie(lines: list[Json]) -> None:
        edit(lines)

    layer = chunked_layer(make_tar(MEMBERS), edit_tar_split=lie)
    with pytest.raises(FormatError, match=message):
        by_tarsplit(layer)


@given(st.data())
def test_whatever_lines_a_tar_split_has_each_file_comes_once_or_it_is_refused(
    data: st.DataObject,
) -> None:
    good = chunked_layer(make_tar(MEMBERS))
    pool = [line for batch in parse_lines([good.tar_split_json]) for line in batch]
    lines = data.draw(st.lists(st.sampled_from(pool), max_size=12) | st.permutations(pool))
    toc = toc_of(good)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(lines)))))
    batches = [lines[start:end] for start, end in itertools.pairwise([0, *cuts, len(lines)])]
    try:
        steps = [step for batch in from_tarsplit(toc, batches) for step in batch.steps]
    except FormatError:
        return
    filled = [number for number, size in enumerate(toc.sizes) if size]
    assert sorted(step for step in steps if isinstance(step, int)) == filled
