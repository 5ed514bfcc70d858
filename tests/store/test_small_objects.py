"""Manifests and configs: kept whole, and kept again where the disk has spoilt them."""

from __future__ import annotations

from pathlib import Path

import pytest

from zchunked.store import Store

DATA = b'{"schemaVersion": 2}'


@pytest.mark.parametrize("damage", [b"", DATA[:5], b"x" + DATA[1:]], ids=["gone", "short", "bit"])
def test_one_that_was_spoilt_is_written_again(damage: bytes, tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        digest = store.put(DATA)
    (file,) = (tmp_path / "blobs").iterdir()
    file.write_bytes(damage)
    with Store(tmp_path) as store:
        assert store.put(DATA) == digest
        assert store.document(digest) == DATA
    with Store(tmp_path) as store:
        assert store.document(digest) == DATA


def test_one_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put(DATA)
        store.put(DATA)
    assert len(list((tmp_path / "blobs").iterdir())) == 1
