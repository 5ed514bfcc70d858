"""Tars of every odd kind, converted and pulled by podman 5.4: in parts, or whole with a reason."""

from __future__ import annotations

import hashlib
import io
import random
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.helpers.build.tar import END_OF_ARCHIVE, Entry, header, make_tar
from tests.helpers.harness import command
from tests.helpers.servers import peers
from tests.peers import corpus
from tests.peers.test_convert import saved_layers

pytestmark = pytest.mark.peer

FOLDER = Entry("d/", type="dir", mode=0o755)
FILE = Entry("d/big", random.Random(7).randbytes(40_000))
TAR = make_tar([FOLDER, FILE])


def tar(*entries: Entry) -> bytes:
    return make_tar([FOLDER, FILE, *entries])


def gnu() -> bytes:
    """Long names, and an owner in base 256."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("d/" + "n" * 200)
        info.size, info.uid = 5, 3_000_000
        archive.addfile(info, io.BytesIO(b"hello"))
        info.name, info.type, info.size, info.linkname = "l", tarfile.SYMTYPE, 0, "t" * 200
        archive.addfile(info)
    return out.getvalue()


def sparse() -> bytes:
    """As GNU tar writes it in a PAX archive: the map is in the payload."""
    entry = Entry(
        "GNUSparseFile.0/f",
        b"1\n0\n5\n".ljust(512, b"\0") + b"hello",
        pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f"}
        | {"GNU.sparse.realsize": "5"},
    )
    return make_tar([FOLDER, FILE, entry])


def odd_padding() -> bytes:
    entry = Entry("d/odd", b"x" * 700)
    padded = header(entry) + entry.data + b"P" * 324
    return make_tar([FOLDER, FILE], end=b"") + padded + END_OF_ARCHIVE


TAKEN = {
    "PAX": tar(
        Entry("d/" + "n" * 200, b"x", mtime="1700000000.123456789", uid=4_000_000_000),
        Entry("d/times", pax={"atime": "1700000000.5", "ctime": "1700000001.5"}),
        Entry("d/attributes", b"x", xattrs={"user.k": b"\xff\0\xfe"}),
        Entry("d/\u2028<&>é\n\\", b"x"),
    ),
    "GNU": gnu(),
    "links and devices": make_tar(
        [
            Entry("a", type="hardlink", linkname="d/big"),
            FOLDER,
            FILE,
            Entry("s", type="symlink", linkname="nowhere"),
            Entry("null", type="char", dev=(1, 3)),
            Entry("disk", type="block", dev=(8, 0)),
            Entry("fifo", type="fifo"),
        ]
    ),
    "whiteouts": tar(Entry("d/.wh.gone"), Entry("e/.wh..wh..opq")),
    "paths": make_tar([Entry("./", type="dir"), Entry("/x//y", b"x")]),
    "holes": tar(Entry("hole", b"a" + bytes(100_000) + b"b"), Entry("zeros", bytes(5_000_000))),
    "odd padding": odd_padding(),
    "zeros behind": TAR + bytes(10_340),
    "few zeros behind": TAR + bytes(7),
    "no end": TAR[:-1024],
    "half an end": TAR[:-512],
    "no files": make_tar([]),
    "nothing at all": b"",
}
WHOLE = {
    "names that are not UTF-8": tar(Entry(b"d/\xff\xfe", b"x")),
    "links that are not UTF-8": tar(Entry("l", type="symlink", linkname=b"\xff")),
    "attributes that are not UTF-8": tar(Entry("d/a", pax={"SCHILY.xattr.user.\udcff": b"x"})),
    "a sparse file": sparse(),
    "bytes behind the end": TAR + b"behind" * 99,
    "an archive behind the end": TAR + TAR,
    "a path up and down": make_tar([Entry("d/../z", b"x")]),
    "a file with a slash": make_tar([Entry("big/", FILE.data)]),
    "a link that states a size": tar(Entry("l", type="symlink", linkname="d", header_size=3)),
    "a padding that is cut short": TAR[:-1100],
}


@pytest.fixture
def podman(tmp_path: Path) -> peers.Tool:
    return peers.podman_new(tmp_path / "podman")


def pulled(podman: peers.Tool, image: str) -> set[str]:
    """The layers that came in parts."""
    done = subprocess.run(
        [*podman.argv, "--log-level=debug", "pull", "--tls-verify=false", image],
        env={**peers.environment(), **podman.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {*re.findall(r"Retrieved partial blob (sha256:[0-9a-f]{64})", done.stderr)}


def converted(tars: dict[str, bytes], image: str, folder: Path) -> list[dict[str, str]]:
    """What became of each."""
    corpus.layout(folder / "plain", {"v": [*tars.values()]})
    told = command.receipt(folder / "home", "convert", f"oci:{folder}/plain:v", image)
    layers: list[dict[str, str]] = told["images"][0]["layers"]
    return layers


def test_each_comes_in_parts_and_is_the_same_tar(
    registry: peers.Server, podman: peers.Tool, tmp_path: Path
) -> None:
    image = f"{registry.host}/odd/taken:v"
    layers = converted(TAKEN, image, tmp_path)
    assert {one["outcome"] for one in layers} == {"converted"}
    assert pulled(podman, image) == {one["digest"] for one in layers}
    podman("save", "--output", tmp_path / "saved.tar", image)
    with tarfile.open(tmp_path / "saved.tar") as archive:
        files = [archive.extractfile(name) for name in saved_layers(archive)]
        digests = [hashlib.sha256(one.read()).hexdigest() for one in files if one]
    assert digests == [hashlib.sha256(one).hexdigest() for one in TAKEN.values()]


def test_each_that_cannot_comes_whole_with_a_reason(
    registry: peers.Server, podman: peers.Tool, tmp_path: Path
) -> None:
    """Of one layer that podman refuses it would not take the image."""
    image = f"{registry.host}/odd/whole:v"
    layers = converted(WHOLE, image, tmp_path)
    assert {one["outcome"] for one in layers} == {"plain"}
    assert all(one["reason"].startswith("its tar ") for one in layers)
    assert pulled(podman, image) == set()
