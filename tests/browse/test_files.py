"""Files of pulled images.

The same from a whole blob and from chunks, and none from a damaged layer.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.helpers.build.front import Entry, Image, chunked_layer, image, make_tar
from tests.helpers.harness.pulls import open_store, pull
from tests.helpers.servers.memory import MemorySource
from zchunked.browse.files import list_files, read_file
from zchunked.errors import DamagedLayerError, NotFoundError
from zchunked.options import GapOptions

NEW = random.Random(1).randbytes(20_000)  # most of the blob


def two_layers() -> Image:
    lower = make_tar([Entry("etc/conf", b"old"), Entry("etc/kept", b"kept"), Entry("gone", b"x")])
    upper = make_tar([Entry("etc/conf", NEW), Entry(".wh.gone", b"")])
    return image([chunked_layer(lower), chunked_layer(upper)])


@pytest.mark.parametrize(
    "gaps", [GapOptions(exact=True), GapOptions(lean=True)], ids=["exact", "lean"]
)
def test_files_are_those_of_all_layers(gaps: GapOptions, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        pulled = pull(MemorySource(two_layers()), store, gaps=gaps).image
        assert pulled is not None
        files = list_files(store, pulled)
        assert {path: entry.layer for path, entry in files.items()} == {
            "etc/conf": 1,
            "etc/kept": 0,
        }
        assert files["etc/conf"].size == len(NEW)
        assert read_file(store, pulled, "/etc/conf") == NEW
        assert read_file(store, pulled, "etc/kept") == b"kept"
        with pytest.raises(NotFoundError):
            read_file(store, pulled, "gone")


def test_nothing_is_read_from_a_damaged_layer(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        pulled = pull(MemorySource(two_layers()), store, gaps=GapOptions(exact=True)).image
        assert pulled is not None
        list_files(store, pulled)  # proves both tars
        for path in (store.folder / "blobs").iterdir():
            if path.suffix == "":
                data = bytearray(path.read_bytes())
                data[len(data) // 3] ^= 1
                path.write_bytes(data)
        with pytest.raises(DamagedLayerError):
            read_file(store, pulled, "etc/conf")
