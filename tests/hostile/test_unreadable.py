"""A file that cannot be read is trouble of this machine.

It accuses nobody, and nothing is dropped for it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.harness.hostile import Bench, bench, honest, old_image
from zchunked.errors import LocalError
from zchunked.maintenance.blob_check import reverify
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import digest_of
from zchunked.options import GapOptions
from zchunked.ranges import ByteRange
from zchunked.store import Store

TROUBLES = {
    name: getattr(errno, name)
    for name in (
        "EMFILE",
        "ENFILE",
        "EACCES",
        "EPERM",
        "EIO",
        "ESTALE",
        "EINTR",
        "ENOMEM",
        "ETIMEDOUT",
        "ENXIO",
    )
}


def breaks(monkeypatch: pytest.MonkeyPatch, on: Bench, call: str, number: int) -> None:
    """Every such system call that touches a byte file fails like this."""
    folder, real = on.store.folder / "blobs", getattr(os, call)

    def is_ours(target: Any) -> bool:
        path = (
            Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)
        )
        return path.parent == folder and not path.suffix

    def broken(target: Any, *rest: Any, **more: Any) -> Any:
        if is_ours(target) and not (call == "open" and rest[0] & os.O_WRONLY):
            raise OSError(number, os.strerror(number))
        return real(target, *rest, **more)

    monkeypatch.setattr(os, call, broken)


def rows(store: Store) -> dict[str, list[ByteRange]]:
    return {blob: store.covered(blob) for blob, _, _ in store.blobs()}


@pytest.mark.parametrize("call", ["open", "pread", "stat"])
@pytest.mark.parametrize("number", TROUBLES.values(), ids=TROUBLES)
def test_verify_drops_nothing_that_it_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    with bench(tmp_path, "warm") as on:
        on.pull(honest())
        before = rows(on.store)
        proofs = [on.store.is_proved(blob) for blob, _, _ in on.store.blobs()]
        on.reopen()
        with monkeypatch.context() as patch:
            breaks(patch, on, call, number)
            with pytest.raises(LocalError):
                verify(on.store)
        assert rows(on.store) == before
        assert [on.store.is_proved(blob) for blob, _, _ in on.store.blobs()] == proofs
        assert not verify(on.store).damaged


@pytest.mark.parametrize("number", TROUBLES.values(), ids=TROUBLES)
def test_a_pull_that_cannot_read_its_store_accuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with bench(tmp_path, "warm") as on:
        before = rows(on.store)
        on.reopen()
        with monkeypatch.context() as patch:
            breaks(patch, on, "pread", number)
            with pytest.raises(LocalError):
                on.pull(honest(), gaps=GapOptions(max_gap=0))
        on.reopen()
        kept = rows(on.store)
        assert all(kept[blob] == spans for blob, spans in before.items())
        on.is_right(on.pull(honest()), honest())


def test_what_is_missing_or_short_is_damage(tmp_path: Path) -> None:
    with bench(tmp_path, "warm") as on:
        largest = max((on.store.folder / "blobs").iterdir(), key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-10])
        on.reopen()
        assert verify(on.store).damaged
        on.is_right(on.pull(old_image()), old_image())


def test_doubt_keeps_what_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench(tmp_path, "cold") as on:
        image = on.pull(honest()).image
        assert image is not None
        before = rows(on.store)
        on.reopen()
        with monkeypatch.context() as patch:
            breaks(patch, on, "open", errno.EMFILE)
            with pytest.raises(LocalError, match="ulimit"):
                reverify(on.store, image.documents.manifest.layers)
        assert rows(on.store) == before


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE])
def test_a_writer_whose_sync_failed_once_never_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The kernel forgets pages that it could not write.

    The next sync of the same file succeeds.
    """
    data, blob = b"x" * 5000, digest_of(b"x" * 5000)
    real, calls = os.fdatasync, 0

    def fdatasync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(number, os.strerror(number))
        real(handle)

    with Store(tmp_path / "store") as store:
        writer = store.writer(blob, len(data))
        writer.write(0, data)
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(LocalError):
            writer.commit()
        assert not store.covered(blob)
        with pytest.raises(LocalError):
            writer.write(0, data)
        with pytest.raises(LocalError):
            writer.close()
    with Store(tmp_path / "store") as store:
        assert not store.covered(blob), "neither from its journal"


def test_a_file_system_that_cannot_sync_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some know no sync of a folder, some none at all; SQLite goes on there too."""

    def unknown(handle: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", unknown)
    monkeypatch.setattr(os, "fdatasync", unknown)
    with Store(tmp_path / "store") as store:
        digest = store.put(b"hello")
    with Store(tmp_path / "store") as store:
        assert store.document(digest) == b"hello"


def test_an_unreadable_journal_is_left_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"y" * 3000
    blob = digest_of(data)
    dead = Store(tmp_path / "store")
    dead.writer(blob, len(data)).write(0, data)
    dead._session._lock = os.dup(dead._session._lock)  # its lock goes with this process alone
    journal = next((tmp_path / "store/blobs").glob("*.map"))
    (live,) = (tmp_path / "store/blobs").glob("*.live")
    live.unlink()  # so it counts as dead
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.suffix == ".map":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        with Store(tmp_path / "store") as store:
            assert not store.covered(blob)
    assert journal.exists()
    with Store(tmp_path / "store") as store:
        assert store.covered(blob) == [ByteRange(0, len(data))]


def test_more_files_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zchunked.store.files.byte_files._MOST_OPEN", 3)
    with Store(tmp_path / "store") as store:
        digests = [store.put(bytes([n]) * 100) for n in range(20)]
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        assert [store.document(digest) for digest in digests] == [
            bytes([n]) * 100 for n in range(20)
        ]
        assert len(os.listdir("/proc/self/fd")) <= before + 3  # noqa: PTH208
