"""Entries of the TOC that cannot be.

Numbers, ranges, digests and holes that contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import Image, Json, image, sha256
from tests.helpers.harness.hostile import (
    CHUNK,
    COLD_AND_WARM,
    MALFORMED,
    STARTS,
    Edit,
    bench,
    both,
    entry_of,
    lies_at,
    moves,
    sets,
    victim,
)
from zchunked.errors import FormatError
from zchunked.limits import Limits


def lying(edit: Callable[[Json], Json | None]) -> Image:
    return image([victim(edit_toc=edit)])


# ── rows 16 to 26: what cannot be ──

HUGE = 1 << 63
REFUSED: dict[str, Edit] = {
    "mode is 1e400": sets("bin/app", mode=10**400),
    "version is a float": lambda toc: toc.update(version=1.5),
    "version is text": lambda toc: toc.update(version="1"),
    "version is true": lambda toc: toc.update(version=True),
    "name is a number": sets("bin/app", name=5),
    "no name": sets("bin/app", name=...),
    "no type": sets("bin/app", type=...),
    "digest is null": sets("bin/app", digest=None),
    "xattrs is a list": sets("bin/app", xattrs=["a"]),
    "chunk first": lambda toc: toc["entries"].insert(
        0, {"type": "chunk", "name": "etc/", "offset": 1, "chunkSize": 1}
    ),
    "chunk after a directory": lambda toc: toc["entries"].insert(
        1, entry_of(toc, "bin/app", 1) | {"name": "etc/"}
    ),
    "chunk of another file": sets("bin/app", 2, name="shared"),
    "chunk of a file that is not there": sets("bin/app", 2, name="zzz"),
    "chunkOffset with a hole": moves("bin/app", 1, chunkOffset=1),
    "chunkOffset that goes back": sets("bin/app", 2, chunkOffset=CHUNK),
    "chunkOffset missing": sets("bin/app", 1, chunkOffset=...),
    "chunkOffset on the first": sets("bin/app", chunkOffset=1),
    "chunks sum to less": moves("bin/app", 3, chunkSize=-1),
    "chunks sum to more": moves("bin/app", 3, chunkSize=1),
    "size less than the chunks": sets("bin/app", size=CHUNK),
    "size more than the chunks": sets("bin/app", size=60_001),
    "chunk of nothing in the middle": sets("bin/app", 1, chunkSize=0),
    "endOffset is offset": lambda toc: sets(
        "etc/app.conf", endOffset=entry_of(toc, "etc/app.conf")["offset"]
    )(toc),
    "endOffset before offset": sets("etc/app.conf", endOffset=1),
    "no offset": sets("etc/app.conf", offset=...),
    "offset zero": sets("etc/app.conf", offset=0),
    "reaches into the TOC": sets("etc/app.conf", endOffset=victim().toc_at.offset - 7),  # type: ignore[union-attr]
    "reaches behind the blob": sets("etc/app.conf", endOffset=1 << 40),
    "reaches to the end of numbers": sets("etc/app.conf", endOffset=HUGE - 1),
    "chunk before its file": sets("bin/app", 1, offset=1),
    "chunk behind its file": sets("bin/app", 1, offset=1 << 40),
    "chunk without offset": sets("bin/app", 1, offset=...),
    "ranges overlap": moves("etc/app.conf", endOffset=1000),
    "file inside another": both(
        lies_at("etc/copy.conf", "bin/app"), moves("etc/copy.conf", offset=9, endOffset=-9)
    ),
    "same range, other digest": lies_at("etc/copy.conf", "etc/app.conf", digest=sha256(b"x")),
    "no digest": sets("etc/app.conf", digest=...),
    "digest is empty": sets("etc/app.conf", digest=""),
    "digest is a path": sets("etc/app.conf", digest="../../../../etc/passwd"),
    "digest is an absolute path": sets("etc/app.conf", digest="/etc/passwd"),
    "digest in upper case": sets("etc/app.conf", digest="sha256:" + "A" * 64),
    "digest is sha512": sets("etc/app.conf", digest="sha512:" + "a" * 128),
    "digest with a line end": sets("etc/app.conf", digest=f"sha256:{'a' * 64}\nsha256:{'a' * 64}"),
    "file digest is a path": sets("bin/app", digest="sha256:../../../../etc/passwd"),
    "chunk digest is a path": sets("bin/app", 1, chunkDigest="sha256:../../../../etc/passwd"),
    "chunk digest missing": sets("bin/app", 1, chunkDigest=...),
    "chunk digest missing on the first": sets("bin/app", chunkDigest=...),
    "one digest, two sizes": sets("etc/copy.conf", size=19),
    "digest of nothing, with a size": sets("etc/app.conf", digest=sha256(b"")),
    "one chunk, two digests": sets("etc/app.conf", chunkDigest=sha256(b"x")),
    "petabytes": sets("etc/app.conf", size=1 << 50),
    "exabytes in chunks": both(
        sets("bin/app", size=HUGE - 1), sets("bin/app", 3, chunkSize=HUGE - 49153)
    ),
    "hole whose digest is not of zeros": sets("var/hole", 1, chunkDigest=sha256(b"x")),
    "data that says it is a hole": sets("bin/app", 1, chunkType="zeros"),
    "file that says it is a hole": sets("etc/app.conf", chunkType="zeros"),
    "empty file with a payload": lies_at("var/empty", "etc/app.conf"),
    "empty file with a digest": sets("var/empty", digest=sha256(b"x")),
    "empty file with chunks": lambda toc: toc["entries"].insert(
        toc["entries"].index(entry_of(toc, "var/empty")) + 1,
        entry_of(toc, "bin/app", 1) | {"name": "var/empty"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("start", COLD_AND_WARM)
@pytest.mark.parametrize("edit", REFUSED.values(), ids=REFUSED)
def test_toc_that_cannot_be(tmp_path: Path, start: str, edit: Any) -> None:
    content = lying(edit)
    with bench(tmp_path, start) as on:
        assert "a" * 100 not in (on.lies(content, MALFORMED) or "")


NO_NUMBERS: list[object] = [1.5, 1e300, True, "1", -1, HUGE, None, [1], {}]


@pytest.mark.parametrize(
    "key",
    ["size", "offset", "endOffset", "chunkSize", "chunkOffset", "mode", "uid", "gid", "devMajor"],
)
def test_number_that_is_none(tmp_path: Path, key: Any) -> None:
    with bench(tmp_path, "warm") as on:
        for value in NO_NUMBERS:
            content = lying(sets("bin/app", **{key: value}))
            with pytest.raises(FormatError, match="malformed TOC"):
                on.pull(content)
            on.has_nothing_of(content)


def test_holes_of_a_terabyte_cost_nothing(tmp_path: Path) -> None:
    """Zeros are not fetched, but their digest would have to be computed.

    The size is refused before.
    """
    with bench(tmp_path, "warm") as on:
        on.lies(lying(sets("var/hole", 1, chunkSize=1 << 40)), MALFORMED)
        on.lies(
            lying(
                both(
                    sets("var/hole", size=1900 + (1 << 40)),
                    sets("var/hole", 1, chunkSize=1 << 40),
                    moves("var/hole", 2, chunkOffset=(1 << 40) - 4096),
                )
            ),
            MALFORMED,
        )


def test_layer_above_our_limit_is_not_asked_for(tmp_path: Path) -> None:
    content = image([victim()])
    with bench(tmp_path, "warm") as on:
        with pytest.raises(Exception, match="limit"):
            on.pull(content, limits=Limits(tar_bytes=100_000))
        on.has_nothing_of(content)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ["chunk first", "petabytes", "digest is a path", "ranges overlap"])
def test_refused_toc_leaves_no_trace(tmp_path: Path, start: str, name: str) -> None:
    with bench(tmp_path, start) as on:
        on.lies_for_good(lying(REFUSED[name]), MALFORMED)
