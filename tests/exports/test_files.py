"""Targets are absent or complete, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from zchunked.errors import IntegrityError, LocalError
from zchunked.exports.files import local_errors, whole_file, whole_folder, write_whole


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


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
    with pytest.raises(type(error)), whole_file(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"app.tar"}


def test_pieces_are_written_one_after_the_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "blob", iter([b"a", memoryview(b"bc"), b""]))
    assert (tmp_path / "blob").read_bytes() == b"abc"


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "layout"
    with whole_folder(path) as partial:
        (partial / "file").write_bytes(b"x")
        assert not path.exists()
        assert partial.parent == tmp_path, "beside it, so that the rename is atomic"
    assert (path / "file").read_bytes() == b"x"
    assert names(tmp_path) == {"layout"}


def test_an_empty_folder_may_be_there_already(tmp_path: Path) -> None:
    path = tmp_path / "layout"
    path.mkdir()
    with whole_folder(path) as partial:
        (partial / "file").write_bytes(b"x")
    assert names(path) == {"file"}


def test_a_folder_that_failed_is_absent(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError), whole_folder(tmp_path / "layout") as partial:
        (partial / "file").write_bytes(b"x")
        raise IntegrityError("x")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("error", [LocalError("the disk is full"), KeyboardInterrupt()])
def test_what_a_person_can_mend_is_not_written_again(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "layout"
    with pytest.raises(type(error)), whole_folder(path) as partial:
        (partial / "file").write_bytes(b"x")
        raise error
    assert not path.exists()
    with whole_folder(path) as partial:
        assert (partial / "file").read_bytes() == b"x"
    assert names(tmp_path) == {"layout"}


def test_missing_folders_above_are_made(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a" / "b" / "layout"):
        pass
    assert (tmp_path / "a" / "b" / "layout").is_dir()


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")])
def test_the_systems_errors_in_our_own_words(number: int, message: str) -> None:
    with pytest.raises(LocalError, match=f"cannot write x: {message}"), local_errors("cannot write x"):
        raise OSError(number, os.strerror(number))
