"""Absent is one thing, what may not be looked at another, with every Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zchunked.errors import LocalError
from zchunked.export.files.folder import is_layout, may_take
from zchunked.export.files.targets import is_regular, is_stream
from zchunked.local.paths import is_file, is_folder, is_there
from zchunked.oci.digest import digest_of
from zchunked.oci.reference import LayoutReference
from zchunked.sources.auth.credentials import Keyring
from zchunked.sources.blob_urls import place_in_layout

QUESTIONS = [is_there, is_file, is_folder, is_layout, may_take, is_regular, is_stream]


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be looked into, as this Python or a newer one says it; root too."""
    folder = tmp_path / "closed"
    folder.mkdir()
    true = os.stat

    def refuse(path: int | str | Path, **how: object) -> os.stat_result:
        if not isinstance(path, int) and folder in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return true(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("os.stat", refuse)
    for name, silent in (
        ("exists", os.path.exists), ("is_dir", os.path.isdir), ("is_file", os.path.isfile),
    ):  # fmt: skip
        monkeypatch.setattr(Path, name, silent)
    return folder


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_may_not_be_looked_at(question: Callable[[Path], bool], closed: Path) -> None:
    with pytest.raises(PermissionError):
        question(closed / "file")


def test_credentials_that_may_not_be_looked_at(closed: Path) -> None:
    with pytest.raises(LocalError, match=r"auth\.json: Permission denied"):
        Keyring({}, authfile=closed / "auth.json").check()


def test_a_layout_that_may_not_be_looked_into(closed: Path) -> None:
    layout = LayoutReference("oci", str(closed / "layout"), "v1", None)
    with pytest.raises(LocalError, match="cannot be read: Permission denied"):
        place_in_layout(layout, digest_of(b"blob"))


def test_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    file, gone, loop = tmp_path / "file", tmp_path / "gone", tmp_path / "loop"
    file.touch()
    (tmp_path / "dangling").symlink_to(gone)
    loop.symlink_to(loop)
    assert (is_there(file), is_file(file), is_folder(file)) == (True, True, False)
    assert (is_there(tmp_path), is_file(tmp_path), is_folder(tmp_path)) == (True, False, True)
    for none in (gone, file / "below", loop, tmp_path / "dangling", "a\0b"):
        assert not is_there(none)
        assert not is_file(none)
        assert not is_folder(none)
    assert is_there(tmp_path / "dangling", follow=False)
