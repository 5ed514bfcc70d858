"""Blobs of the writer.

The tar again by every way to read one, the TOC and tar-split of real writers, refusals.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import sys
import tarfile
import threading
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.reals import Real, reals
from tests.formats.tars.test_tar_recipe import emit
from tests.helpers.build.tar import Entry, make_tar
from zchunked.errors import UnsupportedLayerError
from zchunked.formats.annotations import Location, locate
from zchunked.formats.frames import zstd
from zchunked.formats.frames.decompress import unpacked
from zchunked.formats.tables.toc_parser import parse_toc
from zchunked.formats.tars.tar_recipe import from_tarsplit
from zchunked.formats.tars.tarsplit import parse_lines
from zchunked.formats.writing import writer, writer_frames
from zchunked.formats.writing.toc_writer import Frames
from zchunked.formats.writing.writer import MEDIA_TYPE, LayerWriter, WrittenLayer
from zchunked.limits import Limits
from zchunked.oci.documents import Descriptor

MADE = {
    "d/": b"",
    "d/a": b"hello\n",
    "d/b": b"hello\n",
    "d/empty": b"",
    "d/hole": b"x" * 16 + bytes(2048) + b"y" * 16,
}

LINKS = [
    Entry("d", type="dir"),
    Entry("l", type="symlink", linkname="t" * 120),
    Entry("h", type="hardlink", linkname="d"),
    Entry("null", type="char", dev=(1, 3)),
    Entry("é", b"b" * 70, mtime="1.5", uid=4_000_000_000),
]


def write(tar: bytes, size: int = 1 << 20, **options: Any) -> tuple[bytes, WrittenLayer]:
    layer = LayerWriter(**options)
    blob = b"".join(layer.blob(tar[at : at + size] for at in range(0, len(tar), size)))
    assert layer.written is not None
    return blob, layer.written


def location(written: WrittenLayer) -> Location:
    return locate(
        Descriptor(MEDIA_TYPE, written.digest, written.size, annotations=written.annotations)
    )


def texts(blob: bytes, where: Location) -> tuple[bytes, bytes]:
    assert where.tarsplit is not None
    spans = where.toc, where.tarsplit
    toc, tarsplit = (
        zstd.decode(blob[one.span.start : one.span.end], one.decoded_bytes) for one in spans
    )
    return toc, tarsplit


def check(tar: bytes, blob: bytes, written: WrittenLayer) -> None:
    """The blob is what its description says, and all of its readers find the tar."""
    assert written.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert written.diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert (written.size, written.tar_bytes) == (len(blob), len(tar))
    assert b"".join(unpacked([blob])) == tar
    where = location(written)
    toc_json, tarsplit_json = texts(blob, where)
    toc = parse_toc(toc_json, where.toc.span.start)
    assert where.tarsplit is not None
    frame = blob[where.tarsplit.span.start : where.tarsplit.span.end]
    assert toc.tarsplit_digest == "sha256:" + hashlib.sha256(frame).hexdigest()
    assert emit(from_tarsplit(toc, parse_lines([tarsplit_json])), toc, blob) == tar
    for chunk, digest in enumerate(toc.digests):
        data = b"".join(zstd.stream([blob[toc.starts[chunk] : toc.ends[chunk]]]))
        assert (len(data), hashlib.sha256(data).digest()) == (toc.chunk_sizes[chunk], digest)
    numbers = [
        int.from_bytes(blob[at : at + 8], "little") for at in range(len(blob) - 64, len(blob), 8)
    ]
    parts = where.toc, where.tarsplit
    toc_numbers, tarsplit_numbers = (
        [one.span.start, one.span.size, one.decoded_bytes] for one in parts
    )
    assert numbers == [*toc_numbers, 1, *tarsplit_numbers, int.from_bytes(b"GNUlInUx", "little")]


@pytest.mark.parametrize(
    "real", [real for real in reals() if real.sound and real.location.tarsplit], ids=str
)
def test_toc_and_tar_split_are_those_of_the_reference_writer(real: Real) -> None:
    tar = b"".join(unpacked([real.blob]))
    refused = {"nonutf8": "UTF-8", "junk": "behind its end"}
    for name, reason in refused.items():
        if name in real.name and real.name.endswith("1"):
            with pytest.raises(UnsupportedLayerError, match=reason):
                write(tar)
            return
    blob, written = write(tar, 5000)
    check(tar, blob, written)
    toc, tarsplit = texts(blob, location(written))
    assert without_places(toc) == without_places(real.toc_json)
    # 1.5 MB behind the end of the archive, in other portions
    if not real.name.startswith("edge:edge-2"):
        assert tarsplit == real.tarsplit_text


def without_places(toc: bytes) -> Any:
    """Where frames lie is the encoder's business, and a time may be written in any zone."""
    document = json.loads(toc)
    document.pop("tarSplitDigest")
    for entry in document["entries"] or ():
        for key in ("offset", "endOffset"):
            entry.pop(key, None)
        for key in {"modtime", "accesstime", "changetime"} & entry.keys():
            clock, dot, rest = entry[key].partition(".")
            digits = rest.rstrip("Z").partition("+")[0] if dot else ""
            zone = "+" + rest.partition("+")[2] if "+" in rest else "Z" if dot else ""
            entry[key] = datetime.fromisoformat(clock + zone).timestamp(), digits
    return document


def test_the_worked_example_to_the_letter() -> None:
    real = next(real for real in reals() if real.name.startswith("worked-example"))
    toc, _ = texts(*_located(b"".join(unpacked([real.blob]))))
    shape = [
        {key: value for key, value in entry.items() if "ffset" not in key}
        for entry in json.loads(toc)["entries"]
    ]
    wanted = json.loads(real.toc_json)["entries"]
    assert shape == [
        {key: value for key, value in entry.items() if "ffset" not in key} for entry in wanted
    ]
    # the same order
    assert [[*entry] for entry in json.loads(toc)["entries"]] == [[*entry] for entry in wanted]


def _located(tar: bytes) -> tuple[bytes, Location]:
    blob, written = write(tar)
    return blob, location(written)


@given(st.binary(min_size=1, max_size=64), st.integers(0, 1 << 20), st.integers(1, 200_000))
def test_any_tar_of_any_pieces_comes_back(unit: bytes, seed: int, size: int) -> None:
    rng = random.Random(seed)
    files = {
        f"f{number}": unit * rng.randrange(3000) + rng.randbytes(rng.randrange(9))
        for number in range(9)
    }
    tar = make_tar(MADE | files) + bytes(rng.choice([0, 1, 512, 9216]))
    blob, written = write(tar, size)
    check(tar, blob, written)
    assert write(tar)[0] == blob


def pool(stop: list[threading.Thread]) -> Callable[[Callable[[], Frames]], Callable[[], Frames]]:
    """Each piece of work in a thread of its own, the last begun is the first to end."""

    def submit(work: Callable[[], Frames]) -> Callable[[], Frames]:
        out: list[Frames] = []
        thread = threading.Thread(target=lambda: out.append(work()))
        thread.start()
        stop.append(thread)

        def result() -> Frames:
            thread.join()
            return out[0]

        return result

    return submit


def test_threads_and_pieces_leave_no_trace_in_the_bytes() -> None:
    rng = random.Random(5)
    files = {f"f{number}": rng.randbytes(rng.randrange(60_000)) for number in range(120)}
    tar = make_tar(
        files
        | {"long": b"no cut here " * 500_000, "hole": bytes(9_000_000), "long-tail": bytes(3) * 7}
    )
    blob, written = write(tar)
    check(tar, blob, written)
    threads: list[threading.Thread] = []
    assert write(tar, 77_777, submit=pool(threads), most_pending=3) == (blob, written)
    assert len(threads) > 3


def _odd(form: int) -> bytes:
    """Long names, numbers in base 256 or PAX, odd times and attributes, zeros behind the end."""
    rng, out = random.Random(form), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for number, size in enumerate([0, 1, 511, 512, 513, 70_000, 262_144, 262_145, 700_000]):
            info = tarfile.TarInfo(f"d{number}/f" + "n" * (60 * number) + "é" * (number % 2))
            info.size, info.uid = size, 1 << 3 * number
            info.mtime = number * 1.25 if form == tarfile.PAX_FORMAT else number
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {
                    "SCHILY.xattr.user.x": "v" * number,
                    "comment": "c" * 900 * number,
                }
            tar.addfile(info, io.BytesIO(rng.randbytes(size // 2) + bytes(size - size // 2)))
            link = tarfile.TarInfo(f"l{number}")
            link.type, link.linkname = tarfile.SYMTYPE, "t" + "t" * 30 * number
            tar.addfile(link)
    return out.getvalue() + bytes(1_300)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_odd_tars_come_back_and_threads_leave_no_trace(form: int, ahead: int) -> None:
    if form == tarfile.USTAR_FORMAT:
        tar = make_tar([Entry(f"f{n}", bytes([n]) * (n * 997), uid=n) for n in range(40)]) + bytes(
            700
        )
    else:
        tar = _odd(form)
    blob, written = write(tar)
    check(tar, blob, written)
    threads: list[threading.Thread] = []
    assert write(tar, 4_099 * (ahead + 1), submit=pool(threads), most_pending=ahead) == (
        blob,
        written,
    )


def test_a_frame_that_is_long_is_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a cut, a hole, headers in a row, and bytes behind the end.

    Each far above what is held.
    """
    monkeypatch.setattr(writer_frames, "LONG_BYTES", 50_000)
    monkeypatch.setattr(writer, "_WHOLE_BYTES", 10_000)
    entries = [Entry(f"e{number}") for number in range(300)]
    entries += [
        Entry("uncut", b"A" * 400_000),
        Entry("hole", b"x" + bytes(500_000) + b"y"),
        Entry("zeros", bytes(300_000)),
    ]
    tar = make_tar(entries) + bytes(200_000)
    blob, written = write(tar, 3000)
    check(tar, blob, written)
    assert write(tar, 1 << 20)[0] == blob


@pytest.mark.parametrize(
    "tar", [b"", bytes(1024), bytes(512), make_tar({"d/": b""})], ids=["none", "end", "half", "dir"]
)
def test_tars_without_a_payload(tar: bytes) -> None:
    blob, written = write(tar)
    check(tar, blob, written)
    assert blob.startswith(b"\x28\xb5\x2f\xfd"), "tools tell the compression by the first bytes"


def test_levels_differ_in_size_alone() -> None:
    tar = make_tar({"text": b" ".join(b"%d" % (number * 7919) for number in range(20_000))})
    sizes = [len(write(tar, level=level)[0]) for level in (1, 3, 9, 19)]
    assert sizes == sorted(sizes, reverse=True)
    assert b"".join(unpacked([write(tar, level=19)[0]])) == tar


def test_all_of_a_header_is_in_the_toc() -> None:
    entry = Entry(
        "<a&b>\u2028", b"x", mode=0o4755, uid=4_000_000_000, gid=7, mtime="-1.5",
        xattrs={"user.b": b"\0\xff", "user.a": b"1"},
        pax={"atime": "1.000000001", "LIBARCHIVE.xattr.user.c": "AA", "SCHILY.xattr.user.none": ""},
    )  # fmt: skip
    blob, where = _located(make_tar([entry, Entry("c", type="char", dev=(5, 1))]))
    toc, tarsplit = texts(blob, where)
    assert b'"name":"\\u003ca\\u0026b\\u003e\\u2028"' in toc
    assert b'"name":"\\u003ca\\u0026b\\u003e\\u2028"' in tarsplit
    file, device = json.loads(toc)["entries"]
    assert file["name"] == entry.name
    assert (file["mode"], file["uid"], file["gid"], file["size"]) == (0o4755, 4_000_000_000, 7, 1)
    assert file["modtime"] == "1969-12-31T23:59:58.5Z"
    assert file["accesstime"] == "1970-01-01T00:00:01.000000001Z"
    assert file["xattrs"] == {"user.a": "MQ==", "user.b": "AP8="}
    assert device | {"modtime": 0} == {
        "type": "char", "name": "c", "mode": 0o644, "modtime": 0, "devMajor": 5, "devMinor": 1,
    }  # fmt: skip


REFUSED = {
    "twice": [Entry("a", b"x"), Entry("a", b"x")],
    "twice when clean": [Entry("a", b"x"), Entry("./a", b"x")],
    "directory twice": [Entry("d", type="dir"), Entry("d/", type="dir")],
    "up and down": [Entry("d/../a", b"x")],
    "link up and down": [Entry("a"), Entry("l", type="hardlink", linkname="d/../a")],
    "name": [Entry(b"\xff", b"x")],
    "link": [Entry("l", type="symlink", linkname=b"\xff")],
    "attribute": [Entry("a", pax={b"SCHILY.xattr.\xff".decode("latin-1"): "x"}), Entry(b"\xfe")],
    "no name": [Entry("", b"x")],
    "sized link": [Entry("a", b"hello"), Entry("l", type="hardlink", linkname="a", header_size=5)],
    "before year 1": [Entry("a", mtime="-99999999999")],
    "after year 9999": [Entry("a", mtime="999999999999")],
    "negative owner": [Entry("a", pax={"uid": "-5"})],
    "long name": [Entry("n" * 70_000)],
    "slash": [Entry("a/", b"x")],
    "link with a slash": [Entry("a", b"x"), Entry("l/", type="hardlink", linkname="a")],
    "link to nothing": [Entry("l", type="symlink")],
    "link to elsewhere": [Entry("a", b"x"), Entry("l", type="hardlink", linkname="b")],
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_containers_storage_cannot_read_is_refused(case: str) -> None:
    with pytest.raises(UnsupportedLayerError, match="its tar has"):
        write(make_tar(REFUSED[case]))


@pytest.mark.parametrize("zeros", [1, 100, 512, 1023, 1024, 5000, (1 << 20) - 1, (3 << 20) + 7])
def test_every_line_behind_the_end_is_an_end_for_containers_storage(zeros: int) -> None:
    """It looks for a header in the first 1024 bytes of each."""
    tar = make_tar(MADE) + bytes(zeros)
    blob, written = write(tar)
    check(tar, blob, written)
    lines = [json.loads(line) for line in texts(blob, location(written))[1].splitlines()]
    segments = [base64.b64decode(line["payload"]) for line in lines if line["type"] == 2]
    behind = [one for one in segments if not one.strip(b"\0")]
    assert len(behind) >= 1
    assert all(len(one) >= 1024 for one in behind)


@pytest.mark.parametrize("more", [b"junk", bytes(3000) + b"x", make_tar({"second": b"x"})])
def test_more_than_zeros_behind_the_end_is_refused(more: bytes) -> None:
    with pytest.raises(UnsupportedLayerError, match="behind its end"):
        write(make_tar(MADE) + more)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 511), st.binary(min_size=1, max_size=12)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 5_000),
)
def test_any_tar_is_written_as_it_is_or_refused(
    patches: list[tuple[int, int, bytes]], size: int
) -> None:
    """Headers with anything in them, under checksums that are right."""
    tar = bytearray(make_tar([Entry("n" * 120, b"a" * 600, xattrs={"user.a": b"b"}), *LINKS]))
    for block, at, data in patches:
        start = min(block * 512, len(tar) - 512)
        tar[start + at : start + at + len(data)] = data[: 512 - at]
        header = tar[start : start + 512]
        header[148:156] = b" " * 8
        tar[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    try:
        blob, written = write(bytes(tar), size)
    except UnsupportedLayerError:
        return
    check(bytes(tar), blob, written)


@pytest.mark.parametrize("claim", [1 << 20, (8 << 30) - 1])
def test_a_size_that_is_claimed_is_not_believed(claim: int) -> None:
    tar = make_tar([Entry("a", b"x" * 600, header_size=claim)])
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedLayerError, match="in the middle of a file"):
            write(tar)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_hard_link_may_come_before_its_file() -> None:
    tar = make_tar([Entry("l", type="hardlink", linkname="./d//a"), Entry("/d/./a", b"x")])
    check(tar, *write(tar))


def test_indexes_above_the_limits_of_readers_are_refused() -> None:
    tar = make_tar({f"file-{number}": b"x" for number in range(2000)})
    with pytest.raises(UnsupportedLayerError, match="table of contents"):
        write(tar, limits=Limits(toc_bytes=100_000))
    with pytest.raises(UnsupportedLayerError, match="tar-split"):
        write(tar, limits=Limits(tarsplit_decoded_bytes=100_000))


def test_numpy_is_not_needed_for_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from zchunked.formats.writing import chunker  # noqa: PLC0415

    tar = make_tar({"a": random.Random(8).randbytes(300_000)})
    blob, _ = write(tar)
    monkeypatch.setitem(sys.modules, "numpy", None)
    chunker.fastest_search.cache_clear()
    try:
        assert write(tar)[0] == blob
    finally:
        chunker.fastest_search.cache_clear()
