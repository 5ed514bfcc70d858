"""Blobs made on this machine.

Kept whole under their own digest, or not at all; and what is remembered of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from zchunked.oci.digest import digest_of
from zchunked.ranges import ByteRange
from zchunked.store import Store

DATA = [b"one", b"two" * 1000, b""]


def test_pieces_become_a_whole_blob_that_outlives_the_process(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        digest, size = store.keep(iter(DATA))
        assert (digest, size) == ("sha256:" + hashlib.sha256(b"".join(DATA)).hexdigest(), 3003)
        assert store.keep(iter(DATA)) == (digest, size)
    with Store(tmp_path) as store:
        assert store.is_whole(digest)
        assert b"".join(store.stream(digest, ByteRange(0, size))) == b"".join(DATA)
    files = [path for path in (tmp_path / "blobs").iterdir() if path.stat().st_size]
    assert len(files) == 1, "the second time nothing is kept twice"
    assert files[0].stat().st_mode & 0o777 == 0o600


def test_pieces_that_fail_leave_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("gone")

    with Store(tmp_path) as store:
        with pytest.raises(ValueError, match="gone"):
            store.keep(broken())
        assert store.blobs() == []
    assert not [path for path in (tmp_path / "blobs").iterdir() if path.stat().st_size]


def test_conversions_are_remembered_by_tar_and_settings(tmp_path: Path) -> None:
    tar = digest_of(b"tar")
    with Store(tmp_path) as store:
        assert store.hints.recall_conversion(tar, "level=3") is None
        store.hints.remember_conversion(tar, "level=3", b"result")
        store.hints.remember_conversion(tar, "level=3", b"newer")
    with Store(tmp_path) as store:
        assert store.hints.recall_conversion(tar, "level=3") == b"newer"
        assert store.hints.recall_conversion(tar, "level=4") is None
