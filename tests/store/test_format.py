"""`docs/store.md` as a program.

A reader that knows no more than that page; old, new and moved stores.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers.harness.extract import extract
from tests.helpers.harness.pulls import pull
from tests.helpers.harness.rough import versions
from tests.helpers.servers.memory import MemorySource
from zchunked.errors import LocalError
from zchunked.maintenance.verify import verify
from zchunked.options import GapOptions
from zchunked.store import Store

EXACT = GapOptions(exact=True)


def read_blob(store: Path, digest: str) -> bytes:
    """By the page alone."""
    with closing(sqlite3.connect(store / "index.sqlite")) as db:
        ((number, size),) = db.execute(
            "SELECT id, size FROM blobs WHERE digest = ?", (digest,)
        ).fetchall()
        rows = db.execute(
            "SELECT start, length, file, at FROM extents WHERE blob = ? ORDER BY start", (number,)
        )
        data = bytearray()
        for start, length, file, at in rows.fetchall():
            skip = len(data) - start
            assert skip >= 0, "a hole"
            if skip < length:
                with (store / "blobs" / file).open("rb") as bytes_of:
                    bytes_of.seek(at + skip)
                    data += bytes_of.read(length - skip)
    assert len(data) == size
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store(tmp_path / "store") as store:
        for tag, made in versions().items():
            pull(MemorySource(made), store, f"host.example/app:{tag}", gaps=EXACT)
    return tmp_path / "store"


def test_a_reader_of_the_page_gets_every_blob(folder: Path) -> None:
    for made in versions().values():
        assert (
            read_blob(folder, "sha256:" + hashlib.sha256(made.manifest).hexdigest())
            == made.manifest
        )
        for layer in made.layers:
            assert read_blob(folder, layer.digest) == layer.blob


def test_the_page_names_every_table(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    with closing(sqlite3.connect(folder / "index.sqlite")) as db:
        tables = {
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
    assert not [name for name in tables if f"`{name}" not in page]


def test_a_store_restored_by_tar_elsewhere_is_as_good(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cache.tar", "w") as archive:
        archive.add(folder, "store")
    with tarfile.open(tmp_path / "cache.tar") as archive:
        extract(archive, tmp_path / "elsewhere")
    with Store(tmp_path / "elsewhere" / "store") as store:
        assert verify(store).damaged == []
        outcome = pull(MemorySource(versions()["v2"]), store, "host.example/app:v2", gaps=EXACT)
    assert outcome.receipt.bytes.needed == 0


def set_version(folder: Path, number: int) -> None:
    with closing(sqlite3.connect(folder / "index.sqlite")) as db:
        db.execute(f"PRAGMA user_version={number}")


def test_an_older_format_becomes_this_one(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "index.sqlite")) as db:
        for table in ("headers", "unindexed", "indexing", "strangers", "pulls"):
            db.execute(f"DROP TABLE {table}")
        db.commit()
    set_version(folder, 1)
    with Store(folder) as store:
        assert verify(store).damaged == []
        assert len(store.images()) == 2
        outcome = pull(MemorySource(versions()["v2"]), store, "host.example/app:again", gaps=EXACT)
    assert outcome.receipt.bytes.needed == 0


@pytest.mark.parametrize("number", [3, 99])
def test_a_newer_format_is_refused_and_left_alone(folder: Path, number: int) -> None:
    set_version(folder, number)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        LocalError, match=f"made by a newer version of zpull; .* \\(its format is {number}"
    ):
        Store(folder)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path.name for path in after} - {path.name for path in before} <= {
        "index.sqlite-wal",
        "index.sqlite-shm",
    }
    assert all(after[path] == data for path, data in before.items())
