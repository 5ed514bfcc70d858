"""Blobs taken over from other files: without a copy, without harm to either side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zchunked.errors import IntegrityError
from zchunked.oci.digest import digest_of
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.files.clone import share

DATA = b"bytes of a layer" * 1000
BLOB = digest_of(DATA)
WHOLE = ByteRange(0, len(DATA))


@pytest.fixture
def given(tmp_path: Path) -> Path:
    path = tmp_path / "given"
    path.write_bytes(DATA)
    path.chmod(0o644)
    return path


def handle_of(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def adopt(store: Store, path: Path, size: int = len(DATA)) -> bool:
    handle = handle_of(path)
    done = store.adopt(BLOB, size, handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
    return done


def test_a_blob_is_taken_over_without_a_copy_and_stays_when_the_file_goes(
    tmp_path: Path, given: Path
) -> None:
    with Store(tmp_path / "store") as store:
        assert adopt(store, given)
        assert not store.is_whole(BLOB)  # nobody has verified it
    given.unlink()
    with Store(tmp_path / "store") as store:
        assert store.covered(BLOB) == [WHOLE]
        assert b"".join(store.stream(BLOB, WHOLE)) == DATA


def test_what_was_here_before_is_kept_and_the_rest_taken_over(tmp_path: Path, given: Path) -> None:
    with Store(tmp_path / "store") as store:
        writer = store.writer(BLOB, len(DATA))
        writer.write(100, DATA[100:200])
        writer.close()
        assert adopt(store, given)
        assert store.read(BLOB, 0, len(DATA)) == DATA
    with Store(tmp_path / "store") as store:
        assert store.read(BLOB, 0, len(DATA)) == DATA


def test_a_file_of_another_size_is_not_taken(tmp_path: Path, given: Path) -> None:
    with Store(tmp_path / "store") as store:
        assert not adopt(store, given, len(DATA) - 1)
        assert not adopt(store, given, 0)
        assert store.covered(BLOB) == []


def test_a_file_that_others_may_write_to_is_not_linked(tmp_path: Path, given: Path) -> None:
    given.chmod(0o666)
    handle = handle_of(given)
    try:
        if share(handle, tmp_path / "taken"):  # a reflink: then it is a file of its own
            given.write_bytes(b"changed")
            assert (tmp_path / "taken").read_bytes() == DATA
        else:
            assert given.stat().st_nlink == 1
            assert not (tmp_path / "taken").exists()
    finally:
        os.close(handle)


def test_the_file_is_what_was_opened_whatever_its_name_has_become(
    tmp_path: Path, given: Path
) -> None:
    handle = handle_of(given)
    try:
        given.rename(tmp_path / "moved")
        given.symlink_to("/etc/passwd")
        assert share(handle, tmp_path / "taken")
        assert (tmp_path / "taken").read_bytes() == DATA
    finally:
        os.close(handle)


def test_damage_to_the_other_file_is_forgotten_like_any_other(tmp_path: Path, given: Path) -> None:
    with Store(tmp_path / "store") as store:
        adopt(store, given)
        os.truncate(given, 10)
        if given.stat().st_nlink > 1:
            with pytest.raises(IntegrityError, match="shorter than its index says"):
                store.read(BLOB, 0, len(DATA))
            assert store.drop_lost(BLOB) == [ByteRange(10, len(DATA))]
        store.evict(BLOB, [WHOLE])
    assert given.exists()
    assert given.stat().st_nlink == 1
