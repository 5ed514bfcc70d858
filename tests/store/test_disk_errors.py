"""Messages name the true reason; the store is its owner's alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from zchunked.errors import LocalError
from zchunked.store import Store


def test_a_new_store_is_closed_to_others(tmp_path: Path) -> None:
    with Store(tmp_path / "a" / "store"):
        assert stat.S_IMODE((tmp_path / "a" / "store").stat().st_mode) == 0o700


def test_a_damaged_index_says_what_to_do(tmp_path: Path) -> None:
    Store(tmp_path).close()
    (tmp_path / "index.sqlite").write_bytes(b"no index" * 1000)
    with pytest.raises(LocalError, match="it is damaged: move"):
        Store(tmp_path)
