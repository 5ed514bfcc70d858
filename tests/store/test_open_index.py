"""Stores on file systems that lack something.

They work where SQLite's documentation allows it, or name the reason.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.test_store import BLOB, CONTENT, write
from zchunked.errors import LocalError
from zchunked.oci.digest import digest_of
from zchunked.store import Store
from zchunked.store.processes.owner import mark


def fails(number: int) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def filled(folder: Path) -> Path:
    with Store(folder) as store:
        store.put(CONTENT)
        store.set_image("host/app:v1", "linux/amd64", BLOB, BLOB)
    return folder


def names(folder: Path) -> list[str]:
    """Without what SQLite puts beside the index for all who read it."""
    paths = [
        path
        for path in folder.rglob("*")
        if path.name.partition("-")[0] not in ("pins", "index.sqlite")
    ]
    return sorted(str(path.relative_to(folder)) for path in paths)


# ── read-only ──


def test_a_read_only_store_is_read_and_stays_as_it_is(tmp_path: Path) -> None:
    filled(tmp_path)
    before = names(tmp_path)
    with Store(tmp_path, reads_only=True) as store:
        assert [image.name for image in store.images()] == ["host/app:v1"]
        assert store.get(BLOB, len(CONTENT)) == CONTENT
        store.evict(BLOB, store.covered(BLOB))
        assert store.get(BLOB, len(CONTENT)) is None, "what is damaged is forgotten for now"
        assert names(tmp_path) == before
    with Store(tmp_path) as store:
        assert store.get(BLOB, len(CONTENT)) == CONTENT


def test_a_store_without_the_right_to_write_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    with Store(tmp_path) as store:
        assert store.is_read_only
        assert len(store.images()) == 1


def test_what_would_be_written_to_a_read_only_store_says_so(tmp_path: Path) -> None:
    filled(tmp_path)
    with Store(tmp_path, reads_only=True) as store:
        with pytest.raises(LocalError, match="read-only; name another place with --store"):
            store.put(b"something new")
        with pytest.raises(LocalError, match="read-only"):
            store.collector()
        assert store.drop_unclaimed() == 0


def test_a_killed_process_leaves_rows_that_a_read_only_store_shows(tmp_path: Path) -> None:
    """They are in the write-ahead log, which SQLite reads only where it may write."""
    here, there = filled(tmp_path / "a"), tmp_path / "b"
    with closing(sqlite3.connect(here / "index.sqlite")) as db:
        db.execute("UPDATE refs SET name = 'host/app:v2'")
        db.commit()
        there.mkdir()
        for name in ("index.sqlite", "index.sqlite-wal"):
            shutil.copy(here / name, there / name)
    # cannot be made, as on a read-only file system
    (there / "index.sqlite-shm").symlink_to("nowhere/at all")
    with Store(there, reads_only=True) as store:
        assert [image.name for image in store.images()] == ["host/app:v2"]


def test_who_only_reads_makes_no_store_and_waits_for_no_writer(tmp_path: Path) -> None:
    with Store(tmp_path / "none", reads_only=True) as store:
        assert not store.images()
    assert not (tmp_path / "none").exists()
    folder = filled(tmp_path / "store")
    with closing(sqlite3.connect(folder / "index.sqlite", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with Store(folder, reads_only=True) as store:
            assert len(store.images()) == 1


# ── no shared memory, no locks ──


@pytest.mark.parametrize("has_content", [False, True])
def test_without_shared_memory_the_store_works_and_says_so(
    tmp_path: Path, *, has_content: bool
) -> None:
    if has_content:
        filled(tmp_path)  # its header says WAL
    (tmp_path / "index.sqlite-shm").symlink_to("nowhere/at all")
    with Store(tmp_path) as store, Store(tmp_path) as other:
        assert "cannot share memory" in store.note
        store.put(b"of one")
        other.put(b"of another")
        assert store.get(digest_of(b"of another"), 10) == b"of another"
        assert len(store.images()) == has_content


def test_without_locks_one_process_at_a_time_uses_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    monkeypatch.setattr(fcntl, "lockf", fails(errno.ENOLCK))
    with Store(tmp_path) as store:
        assert "has no locks" in store.note
        store.put(b"new")
        with pytest.raises(LocalError, match=f"in use by process {os.getpid()}"):
            Store(tmp_path)
    with Store(tmp_path) as store:
        assert store.get(digest_of(b"new"), 3) == b"new"


def killed() -> bytes:
    """The mark of a process of this machine that is gone."""
    code = (
        "import sys; from zchunked.store.processes.owner import mark; "
        "sys.stdout.buffer.write(mark())"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout


def test_without_locks_a_killed_process_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "lockf", fails(errno.ENOLCK))
    (tmp_path / "index.owner").write_bytes(killed())
    with Store(tmp_path) as store:
        store.put(b"x")
    assert not list(tmp_path.glob("index.owner*"))


@pytest.mark.parametrize(
    "text",
    [b"", b"7", mark().replace(os.uname().nodename.encode(), b"elsewhere")],
    ids=["empty", "half", "elsewhere"],
)
def test_without_locks_a_process_that_may_live_is_never_robbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    monkeypatch.setattr(fcntl, "lockf", fails(errno.ENOLCK))
    (tmp_path / "index.owner").write_bytes(text)
    with pytest.raises(LocalError, match=r"or remove .*index\.owner"):
        Store(tmp_path)


def test_without_flock_a_killed_session_is_told_from_a_live_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", fails(errno.ENOLCK))
    blobs = tmp_path / "blobs"
    with Store(tmp_path) as store:
        write(store, (0, 100))
        writer = store.writer(BLOB, len(CONTENT))
        writer.write(100, CONTENT[100:200])
        with Store(tmp_path):
            assert list(blobs.glob("*.map")), "the writer lives, so nobody takes its journal"
        live = blobs / f"{store._session.name}.live"
        live.write_bytes(killed())
        with Store(tmp_path) as other:
            assert other.covered(BLOB)[0].end == 200
        assert not live.exists()
        writer.close()


@pytest.mark.parametrize(
    "number", [errno.EINVAL, errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENOSYS]
)
def test_without_sync_of_folders_the_store_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", fails(number))
    with Store(tmp_path) as store:
        store.put(CONTENT)
        assert store.get(BLOB, len(CONTENT)) == CONTENT


# ── reasons ──


@pytest.mark.parametrize(
    ("number", "word"), [(errno.EDQUOT, "quota"), (errno.ENOSPC, "disk is full")]
)
def test_what_sqlite_hides_is_found_by_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str
) -> None:
    (tmp_path / "index.sqlite-shm").symlink_to("nowhere/at all")
    monkeypatch.setattr(os, "pwrite", fails(number))
    with pytest.raises(LocalError, match=word):
        Store(tmp_path)
    assert not list(tmp_path.glob("probe-*"))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_index_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    (tmp_path / "blobs").mkdir(parents=True)
    before = os.umask(umask)
    try:
        with Store(tmp_path) as store:
            store.put(b"x")
            rights = {
                path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("index*")
            }
    finally:
        os.umask(before)
    assert rights == dict.fromkeys(["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"], 0o600)
