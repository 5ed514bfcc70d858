"""Tars are read as Go reads them.

What containers/storage refuses or would lose is refused, with the reason.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.reals import Real, reals
from tests.helpers.build.tar import END_OF_ARCHIVE, Entry, header, make_tar, parse_tar
from zchunked.errors import UnsupportedLayerError
from zchunked.formats.frames.decompress import unpacked
from zchunked.formats.tars.tar_reader import Member, TarReader

HEADER = header(Entry("a", b"hello"))


def read(tar: bytes, size: int = 1 << 20) -> tuple[list[tuple[Member, bytes]], bytes, bytes]:
    """Members with their payloads, the end, and the rest; the tar comes in pieces of this size."""
    reader = TarReader(tar[at : at + size] for at in range(0, len(tar), size))
    members = [(member, b"".join(reader.payload())) for member in reader.members()]
    return members, reader.end, b"".join(reader.rest())


def resigned(block: bytes, at: int, value: bytes) -> bytes:
    """A header with another value in it, and its checksum made again."""
    block = block[:at] + value + block[at + len(value) :]
    total = sum(block[:148]) + 256 + sum(block[156:512])
    return block[:148] + b"%06o\0 " % total + block[156:]


@pytest.mark.parametrize("real", [real for real in reals() if real.sound], ids=str)
def test_real_tars_are_read_as_an_independent_parser_reads_them(real: Real) -> None:
    tar = b"".join(unpacked([real.blob]))
    members, end, rest = read(tar, 700)
    wanted, wanted_end, wanted_rest = parse_tar(tar)
    assert (end, rest) == (wanted_end, wanted_rest)
    assert [member.header for member, _ in members] == [one.header for one in wanted]
    for (member, payload), one in zip(members, wanted, strict=True):
        assert (member.name, member.kind, member.link_name) == (one.name, one.type, one.linkname)
        assert (member.mode, member.size, member.uid, member.gid) == (
            one.mode,
            one.size,
            one.uid,
            one.gid,
        )
        assert (member.mtime, member.atime, member.ctime) == (one.mtime, one.atime, one.ctime)
        assert {
            name.decode("utf-8", "surrogateescape"): x for name, x in member.xattrs.items()
        } == one.xattrs
        assert payload == one.data


@given(st.integers(1, 3000))
def test_the_pieces_of_a_tar_leave_no_trace(size: int) -> None:
    tar = make_tar({"d/": b"", "d/a": b"x" * 700, "long" * 60: b"y", "e": b""}) + b"junk" * 300
    assert read(tar, size) == read(tar)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_numbers_of_both_formats(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        info = tarfile.TarInfo("d/" + "n" * 300)
        info.uid, info.gid, info.size, info.mtime = 4_000_000_000, 3, 5, 1_700_000_000
        tar.addfile(info, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * 300
        tar.addfile(link)
    (file, data), (symlink, _) = read(out.getvalue())[0]
    assert (file.name, file.uid, file.gid, file.mtime, data) == (
        b"d/" + b"n" * 300, 4_000_000_000, 3, 1_700_000_000 * 10**9, b"hello",
    )  # fmt: skip
    assert (symlink.kind, symlink.link_name) == ("symlink", b"t" * 300)


def test_formats_older_and_odder_than_ustar() -> None:
    v7 = resigned(HEADER, 257, bytes(8)) + b"hello" + bytes(507)
    folder = resigned(resigned(header(Entry("b/")), 257, bytes(8)), 156, b"\0")
    gnu = resigned(resigned(header(Entry("c")), 257, b"ustar  \0"), 345, b"00000000012\0")
    star = resigned(
        resigned(header(Entry("e")), 345, b"p\0"), 476, b"00000000001\0 00000000002\0tar\0"[:12]
    )
    members = [member for member, _ in read(v7 + folder + gnu + star)[0]]
    assert [(one.name, one.kind) for one in members] == [
        (b"a", "reg"), (b"b/", "dir"), (b"c", "reg"), (b"p/e", "reg"),
    ]  # fmt: skip
    assert (members[2].atime, members[2].ctime) == (10 * 10**9, None)


def test_a_signed_checksum_is_one() -> None:
    block = resigned(header(Entry("a\xe9\xe9".encode("latin-1"))), 0, b"")
    signed = sum(byte - 256 * (byte >= 128) for byte in block[:148] + block[156:]) + 256
    assert read(block[:148] + b"%06o\0 " % signed + block[156:])[0][0][0].name == b"a\xe9\xe9"


def test_links_have_no_payload_whatever_their_header_says() -> None:
    tar = make_tar([Entry("a", b"hello"), Entry("l", type="hardlink", linkname="a", header_size=5)])
    assert [payload for _, payload in read(tar)[0]] == [b"hello", b""]


@pytest.mark.parametrize(
    "end", [b"", bytes(512), bytes(1024), bytes(10_240), bytes(1024) + b"junk"]
)
def test_every_end_of_an_archive(end: bytes) -> None:
    _, found, rest = read(make_tar([Entry("a", b"x")], end=end))
    assert found + rest == bytes(511) + end


def pax(body: bytes) -> bytes:
    block = resigned(resigned(header(Entry("x")), 156, b"x"), 124, b"%011o\0" % len(body))
    return block + body + bytes(-len(body) % 512) + HEADER + b"hello" + bytes(507)


REFUSED: dict[str, tuple[bytes, str]] = {
    "global header": (resigned(HEADER, 156, b"g"), "PAX global"),
    "contiguous": (resigned(HEADER, 156, b"7"), "contiguous"),
    "old sparse": (resigned(HEADER, 156, b"S"), "sparse"),
    "unknown type": (resigned(HEADER, 156, b"Z"), "type"),
    "PAX sparse": (make_tar([Entry("a", b"", pax={"GNU.sparse.major": "1"})]), "sparse"),
    "checksum": (b"b" + HEADER[1:] + bytes(512), "checksum"),
    "no octal": (resigned(HEADER, 100, b"abc"), "octal"),
    "huge number": (resigned(HEADER, 124, b"\x80" + b"\x7f" * 11), "64 bits"),
    "negative size": (resigned(HEADER, 124, b"\xff" * 12), "-1 bytes"),
    "cut payload": (HEADER + b"hel", "middle of a file"),
    "cut padding": (HEADER + b"hello" + bytes(100), "padding"),
    "cut header": (HEADER[:300], "middle of a header"),
    "cut extension": (pax(b"12 path=abc\n")[:700], "middle of a header"),
    "only an extension": (pax(b"12 path=abc\n")[:1024], "extension"),
    "lone zero block": (bytes(512) + HEADER, "zeros"),
    "PAX length": (pax(b"99 path=abc\n"), "PAX"),
    "PAX line end": (pax(b"12 path=abcd"), "PAX"),
    "PAX no key": (pax(b"7 =abc\n"), "PAX"),
    "PAX NUL": (pax(b"12 path=a\0c\n"), "PAX"),
    "PAX number": (pax(b"12 size=1_0\n"), "decimal"),
    "PAX time": (pax(b"13 mtime=1e5\n"), "time"),
    "endless extensions": (pax(b"12 path=abc\n")[:1024] * 4000, "bytes of headers"),
    "endless extension": (
        resigned(resigned(HEADER, 156, b"x"), 124, b"%011o\0" % (2 << 20)),
        "extension",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_table_of_contents_can_say_is_refused(case: str) -> None:
    tar, reason = REFUSED[case]
    with pytest.raises(UnsupportedLayerError, match=reason):
        read(
            tar + END_OF_ARCHIVE
            if case.startswith(("PAX s", "glob", "cont", "old", "unk"))
            else tar
        )


@given(st.binary(max_size=2000), st.integers(0, 1500))
def test_nothing_but_a_refusal_comes_of_rubbish(rubbish: bytes, at: int) -> None:
    tar = make_tar([Entry("a", b"x" * 100, pax={"comment": "y" * 40})])
    outcome: Callable[[], object] = lambda: read(tar[:at] + rubbish + tar[at:])  # noqa: E731
    try:
        outcome()
    except UnsupportedLayerError:
        return
