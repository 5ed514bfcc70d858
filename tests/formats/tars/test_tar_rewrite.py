"""Rewritten tars: the same files, with headers in which less of a build can be seen."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.formats.reals import Real, reals
from tests.helpers.build.tar import Entry, make_tar, parse_tar
from zchunked.errors import UnsupportedLayerError
from zchunked.formats.frames.decompress import unpacked
from zchunked.formats.tars.tar_rewrite import TarRewriter

EPOCH = 1_600_000_000


def rewritten(tar: bytes, rewriter: TarRewriter, size: int = 1 << 20) -> bytes:
    return b"".join(rewriter(tar[at : at + size] for at in range(0, len(tar), size)))


@pytest.mark.parametrize(
    "rewriter", [TarRewriter(EPOCH), TarRewriter(None, True), TarRewriter(EPOCH, True)], ids=str
)
@pytest.mark.parametrize("real", [real for real in reals() if real.sound], ids=str)
def test_files_stay_what_they_are(real: Real, rewriter: TarRewriter) -> None:
    tar = b"".join(unpacked([real.blob]))
    made = rewritten(tar, rewriter, 5000)
    before, end, rest = parse_tar(tar)
    after, end_after, rest_after = parse_tar(made)
    assert (end, rest) == (end_after, rest_after)
    latest = (rewriter.latest if rewriter.latest is not None else 1 << 60) * 10**9
    for old, new in zip(before, after, strict=True):
        assert (old.name, old.type, old.linkname, old.mode, old.size) == (
            new.name, new.type, new.linkname, new.mode, new.size,
        )  # fmt: skip
        assert (old.uid, old.gid, old.dev, old.xattrs, old.data) == (
            new.uid,
            new.gid,
            new.dev,
            new.xattrs,
            new.data,
        )
        assert new.mtime == min(old.mtime, latest)
        if rewriter.normalize:
            assert (new.atime, new.ctime) == (None, None)
        else:
            assert new.atime == (None if old.atime is None else min(old.atime, latest))
    assert rewritten(made, rewriter) == made, "the second time changes nothing"


def test_a_tar_without_anything_to_change_keeps_every_byte() -> None:
    tar = (
        make_tar([Entry("a", b"x" * 700, mtime=5), Entry("b", mtime="7.5", pax={"comment": "c"})])
        + b"junk"
    )
    assert rewritten(tar, TarRewriter(EPOCH)) == tar


def made_by(form: int, mtime: float, user: str, atime: str) -> bytes:
    """What another build of the same file looks like."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        info = tarfile.TarInfo("d/" + "n" * 150)
        info.size, info.mtime, info.uname, info.gname = 5, mtime, user, user
        info.pax_headers = {"atime": atime} if form == tarfile.PAX_FORMAT else {}
        tar.addfile(info, io.BytesIO(b"hello"))
    return out.getvalue()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_two_builds_become_the_same(form: int) -> None:
    builds = (
        made_by(form, 1_700_000_000.25, "me", "1.5"),
        made_by(form, 1_700_009_999.5, "you", "2.5"),
    )
    assert builds[0] != builds[1]
    rewriter = TarRewriter(EPOCH, normalize=True)
    assert rewritten(builds[0], rewriter) == rewritten(builds[1], rewriter)


def test_extension_headers_lose_the_traces_of_a_process() -> None:
    entry = Entry("dir/a", b"x", pax={"atime": "1.5"})
    tar = make_tar([entry])
    assert b"atime" in tar
    assert rewritten(tar, TarRewriter(normalize=True)) == make_tar([Entry("dir/a", b"x")])


def test_a_tar_that_cannot_be_read_is_not_rewritten() -> None:
    with pytest.raises(UnsupportedLayerError):
        rewritten(make_tar([Entry("a", b"hello")])[:514], TarRewriter(EPOCH))
