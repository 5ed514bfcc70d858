"""The tree of several layers: what is removed, replaced and linked, and what reading follows."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence

import pytest

from zchunked.browse.tree import FileEntry, apply_layer, find_file
from zchunked.errors import NotFoundError, UsageError
from zchunked.formats.tars.tar_reader import Member, TarReader


def tree_of(*layers: Sequence[str]) -> dict[str, FileEntry]:
    """Each name of a layer: `dir/`, `file`, `link -> target`, `hard => target`."""
    tree: dict[str, FileEntry] = {}
    for number, names in enumerate(layers):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for text in names:
                name, _, target = text.replace(" => ", " -> ").partition(" -> ")
                member = tarfile.TarInfo(name.rstrip("/"))
                if name.endswith("/"):
                    member.type = tarfile.DIRTYPE
                elif target:
                    member.type = tarfile.LNKTYPE if "=>" in text else tarfile.SYMTYPE
                    member.linkname = target
                content = text.encode() if member.isreg() else b""
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        apply_layer(tree, _members(data.getvalue()), number)
    return tree


def _members(data: bytes) -> Iterator[Member]:
    reader = TarReader([data])
    for member in reader.members():
        yield member
        for _ in reader.payload():
            pass


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([["a", "d/", "d/b"], ["d/.wh.b"]], {"a", "d"}),
        ([["d/", "d/b", "d/e/", "d/e/f"], [".wh.d"]], set()),
        ([["d/", "d/b"], ["d/", "d/.wh..wh..opq", "d/new"]], {"d", "d/new"}),
        ([["d/", "d/b"], ["d"]], {"d"}),
        ([["d/", "d/b"], [".wh.d", "d/", "d/c"]], {"d", "d/c"}),
        ([["d/", "d/b"], ["d/", "d/c", ".wh.d"]], {"d", "d/c"}),
        ([["./a", "/b"]], {"a", "b"}),
        ([["d/", "dd"], [".wh.d"]], {"dd"}),
    ],
)
def test_layers_are_applied_in_order(layers: list[list[str]], left: set[str]) -> None:
    assert set(tree_of(*layers)) == left


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("usr/bin/sh", "usr/bin/sh"),
        ("/bin/sh", "usr/bin/sh"),
        ("bin/../bin/sh", "usr/bin/sh"),
        ("abs", "usr/bin/sh"),
        ("../../usr/bin/sh", "usr/bin/sh"),
        ("implied/file", "implied/file"),
    ],
)
def test_links_lead_to_files_inside_the_image(path: str, found: str) -> None:
    tree = tree_of(
        ["usr/", "usr/bin/", "usr/bin/sh", "bin -> usr/bin", "abs -> /bin/sh", "implied/file"]
    )
    assert find_file(tree, path).path == found


def test_a_hardlink_keeps_its_content_when_its_file_is_replaced() -> None:
    tree = tree_of(["a", "b => a"], ["a", "c => b"])
    for name in ("b", "c"):
        entry = find_file(tree, name)
        assert (entry.link, entry.layer, entry.size) == ("a", 0, 1)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("loop", NotFoundError),
        ("nothing", NotFoundError),
        ("a/b", NotFoundError),
        ("d", UsageError),
        ("", UsageError),
        ("a/..", UsageError),
    ],
)
def test_what_cannot_be_read_says_why(path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        find_file(tree_of(["a", "d/", "loop -> other", "other -> loop"]), path)
