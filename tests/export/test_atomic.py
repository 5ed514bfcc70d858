"""Targets are absent or complete, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest

from zchunked.errors import IntegrityError, LocalError
from zchunked.export.atomic import is_free, local_errors, whole_file, whole_folder, write_whole


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def broken(writing: AbstractContextManager[IO[bytes] | Path], error: BaseException) -> None:
    """Write something, then fail."""
    with writing as there:
        if isinstance(there, Path):
            (there / "file").write_bytes(b"x")
        else:
            there.write(b"new")
        raise error


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "app.tar"
    with whole_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert names(tmp_path) == {"app.tar"}


@pytest.mark.parametrize("error", [IntegrityError("x"), OSError("x"), KeyboardInterrupt()])
def test_a_file_that_failed_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "app.tar"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        broken(whole_file(path), error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"app.tar"}


def test_pieces_are_written_one_after_the_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "blob", [b"a", memoryview(b"bc"), b""])
    assert (tmp_path / "blob").read_bytes() == b"abc"


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "layout"
    with whole_folder(path, "last") as partial:
        (partial / "file").write_bytes(b"x")
        assert not path.exists()
        assert partial.parent == tmp_path, "beside it, so that the rename is atomic"
    assert (path / "file").read_bytes() == b"x"
    assert names(tmp_path) == {"layout"}


def test_an_empty_folder_that_is_there_stays_and_is_filled(tmp_path: Path) -> None:
    """It may be a mount point, which nobody can rename, or where a shell stands."""
    path = tmp_path / "layout"
    path.mkdir()
    before = path.stat().st_ino
    for _ in range(2):
        with pytest.raises(LocalError):
            broken(whole_folder(path, "a"), LocalError("the disk is full"))
        assert is_free(path)
    with whole_folder(path, "a") as partial:
        (partial / "b").mkdir()
        (partial / "a").write_bytes(b"x")
    assert names(path) == {"a", "b", "file"}, "what a broken run left is used again"
    assert path.stat().st_ino == before
    assert not is_free(path)


def test_what_the_rest_hangs_on_comes_last(tmp_path: Path) -> None:
    (tmp_path / "out" / "z").mkdir(parents=True)
    (tmp_path / "out" / "z" / "in the way").write_bytes(b"x")

    def fill() -> None:
        with whole_folder(tmp_path / "out", "index.json") as partial:
            (partial / "index.json").write_bytes(b"x")
            (partial / "z").mkdir()

    with pytest.raises(OSError, match="not empty"):
        fill()
    assert names(tmp_path / "out") == {"z"}


def test_a_file_is_no_free_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert not is_free(tmp_path / "file")
    assert is_free(tmp_path / "nothing")


def test_a_folder_that_failed_is_absent(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        broken(whole_folder(tmp_path / "layout", "last"), IntegrityError("x"))
    assert names(tmp_path) == set()


@pytest.mark.parametrize("error", [LocalError("the disk is full"), KeyboardInterrupt()])
def test_what_a_person_can_mend_is_not_written_again(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "layout"
    with pytest.raises(type(error)):
        broken(whole_folder(path, "last"), error)
    assert not path.exists()
    with whole_folder(path, "last") as partial:
        assert (partial / "file").read_bytes() == b"x"
    assert names(tmp_path) == {"layout"}


def test_missing_folders_above_are_made(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a" / "b" / "layout", "last"):
        pass
    assert (tmp_path / "a" / "b" / "layout").is_dir()


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")]
)
def test_the_systems_errors_in_our_own_words(number: int, message: str) -> None:
    with pytest.raises(LocalError, match=f"cannot write x: {message}"), local_errors("cannot write x"):
        raise OSError(number, os.strerror(number))
