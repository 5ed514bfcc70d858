"""A damaged index is found when it is used.

The next command rebuilds it out of what can be read of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.harness.pulls import pull
from tests.helpers.harness.rough import versions
from tests.helpers.servers.memory import MemorySource
from zchunked.errors import LocalError
from zchunked.maintenance.verify import verify
from zchunked.oci.digest import Digest
from zchunked.store import Store

NAME = "host.example/app:v1"
PAGE = 4096


def flip(at: int) -> Callable[[bytearray], None]:
    def hurt(data: bytearray) -> None:
        data[at % len(data)] ^= 0x40

    return hurt


def cut(size: int) -> Callable[[bytearray], None]:
    def hurt(data: bytearray) -> None:
        del data[size if size >= 0 else len(data) + size :]

    return hurt


def pages_of_zeros(data: bytearray) -> None:
    data[2 * PAGE : 6 * PAGE] = bytes(4 * PAGE)


HURTS = {
    **{f"bit {at} of the header": flip(at) for at in (3, 17, 20, 52, 100, 103, 107)},
    **{f"a bit of page {number}": flip(number * PAGE + 3) for number in range(1, 12)},
    **{f"a bit within page {number}": flip(number * PAGE + 3000) for number in range(1, 12, 3)},
    **{f"cut to {size}": cut(size) for size in (50, PAGE, 5 * PAGE, -PAGE, -1)},
    "pages of zeros": pages_of_zeros,
}


@pytest.mark.parametrize("hurt", HURTS.values(), ids=HURTS)
def test_a_damaged_index_costs_no_wrong_byte_and_is_healed(
    hurt: Callable[[bytearray], None], tmp_path: Path
) -> None:
    made = versions()["v1"]
    with Store(tmp_path) as store:
        pull(MemorySource(made), store, NAME)
        store.collector().shrink_index()
    index = tmp_path / "index.sqlite"
    data = bytearray(index.read_bytes())
    hurt(data)
    index.write_bytes(data)
    for _ in range(3):  # found, rebuilt, pulled
        try:
            with Store(tmp_path) as store:
                pull(MemorySource(made), store, NAME)
                assert verify(store).damaged == []
                for layer in made.layers:
                    assert store.read(Digest(layer.digest), 0, layer.size) == layer.blob
            break
        except LocalError as error:
            if "it is rebuilt then" not in str(error):
                raise
    else:
        pytest.fail("it was not healed")
    with Store(tmp_path) as store:
        assert [image.name for image in store.images()] == [NAME]


def damaged(folder: Path) -> None:
    with Store(folder) as store:
        pull(MemorySource(versions()["v1"]), store, NAME)
        store.collector().shrink_index()
    with (folder / "index.sqlite").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8)
    with pytest.raises(LocalError, match="it is rebuilt then"):
        Store(folder)


def test_what_can_be_read_is_not_downloaded_again(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        pull(MemorySource(versions()["v1"]), store, NAME)
    (tmp_path / "index.sqlite.damaged").touch()
    with Store(tmp_path) as store:
        outcome = pull(MemorySource(versions()["v1"]), store, NAME)
    assert outcome.receipt.bytes.needed == 0
    assert not (tmp_path / "index.sqlite.damaged").exists()


def test_it_is_not_rebuilt_under_a_running_process(tmp_path: Path) -> None:
    with Store(tmp_path) as running:
        pull(MemorySource(versions()["v1"]), running, NAME)
        (tmp_path / "index.sqlite.damaged").touch()
        with pytest.raises(LocalError, match="end the other zpull processes"):
            Store(tmp_path)
    Store(tmp_path).close()


def test_a_kill_while_it_is_rebuilt_begins_again(tmp_path: Path) -> None:
    damaged(tmp_path)
    (tmp_path / "index.new").write_bytes(b"half")
    with Store(tmp_path) as store:
        assert store.images() is not None
    with sqlite3.connect(tmp_path / "index.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
