"""Targets are absent or complete, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest

from zchunked.errors import IntegrityError, LocalError
from zchunked.export.files import atomic
from zchunked.export.files.atomic import (
    local_errors,
    partial_name,
    sweep,
    sweep_beside,
    whole_file,
    write_whole,
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def broken(writing: AbstractContextManager[IO[bytes]], error: BaseException) -> None:
    """Write something, then fail."""
    with writing as there:
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


def test_many_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "app.tar"
    with whole_file(path) as one:
        one.write(b"one")
        with whole_file(path) as other:
            other.write(b"other")
        assert path.read_bytes() == b"other"
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == {"app.tar"}


def test_a_partial_name_cannot_be_guessed_and_nothing_planted_there_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "app.tar"
    assert partial_name(path) != partial_name(path)
    guessed = [partial_name(path) for _ in range(2)]
    guessed[0].symlink_to(victim)
    left = list(guessed)
    monkeypatch.setattr(atomic, "partial_name", lambda _: left.pop(0))
    with whole_file(path) as file:
        file.write(b"x")
    assert (path.read_bytes(), victim.read_bytes()) == (b"x", b"precious")
    assert guessed[0].is_symlink()


def test_what_killed_writers_left_is_swept_and_what_living_ones_write_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "app.tar"
    partial_name(path).write_bytes(b"half")
    partial_name(tmp_path / "app").write_bytes(b"of another file")
    with whole_file(path) as file:
        file.write(b"x")
        sweep_beside(path)
        assert len(names(tmp_path)) == 2
    assert path.read_bytes() == b"x"
    sweep(tmp_path)
    assert names(tmp_path) == {"app.tar"}


def test_a_long_name_has_room_for_a_partial_one(tmp_path: Path) -> None:
    path = tmp_path / ("\N{OX}" * 60)
    with whole_file(path) as file:
        file.write(b"x")
    assert names(tmp_path) == {path.name}


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")]
)
def test_the_systems_errors_in_our_own_words(number: int, message: str) -> None:
    with (
        pytest.raises(LocalError, match=f"cannot write x: {message}"),
        local_errors("cannot write x"),
    ):
        raise OSError(number, os.strerror(number))
