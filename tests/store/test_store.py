"""The store: what went in comes out, what is damaged counts as missing.

Two processes never disturb each other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zchunked.errors import IntegrityError, LocalError
from zchunked.findings import Image
from zchunked.oci.digest import Digest, digest_of, raw
from zchunked.ranges import ByteRange
from zchunked.store import Store
from zchunked.store.chunks import ChunkLocation

CONTENT = bytes(number * 31 % 251 for number in range(10_000))
BLOB = digest_of(CONTENT)
OTHER = digest_of(b"other")
CHUNK, CHUNK2 = raw(digest_of(b"chunk")), raw(digest_of(b"chunk2"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as found:
        yield found


def again(store: Store) -> Store:
    """As another process sees it."""
    return Store(store.folder)


def write(
    store: Store, *spans: tuple[int, int], blob: Digest = BLOB, content: bytes = CONTENT
) -> None:
    writer = store.writer(blob, len(content))
    for start, end in spans:
        writer.write(start, content[start:end])
    writer.close()


def spoil(store: Store, where: int = 0, *, blob: Digest = BLOB) -> None:
    """Flip a byte on the disk behind the store's back."""
    file, at = next(
        (file, at + where - start)
        for start, end, file, at in store._index.extents(blob)
        if start <= where < end
    )
    path = store.folder / "blobs" / file
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


# ── small objects ──


@pytest.mark.parametrize("data", [b"", b"x", CONTENT])
def test_an_object_comes_out_as_it_went_in(store: Store, data: bytes) -> None:
    digest = store.put(data)
    assert digest == digest_of(data)
    other = again(store)
    for one in (store, other):
        assert one.get(digest, len(data)) == data
        assert one.is_whole(digest)
    if data:
        assert other.document(digest) == data
    other.close()


def test_putting_twice_keeps_one_copy(store: Store) -> None:
    for _ in range(3):
        store.put(CONTENT)
    files = list((store.folder / "blobs").glob("*-*"))
    assert sum(path.stat().st_size for path in files) == len(CONTENT)


def test_what_was_never_put_is_not_here(store: Store) -> None:
    assert store.get(BLOB, 10) is None
    assert store.get(digest_of(b""), 0) is None
    assert store.document(BLOB) is None
    assert not store.is_whole(BLOB)
    assert store.covered(BLOB) == []


@pytest.mark.parametrize("size", [9_999, 10_001, 0])
def test_an_object_of_another_size_is_not_here(store: Store, size: int) -> None:
    store.put(CONTENT)
    assert store.get(BLOB, size) is None or not size


def test_a_part_is_not_an_object(store: Store) -> None:
    write(store, (0, 9_999))
    assert store.get(BLOB, len(CONTENT)) is None
    assert store.covered(BLOB) == [ByteRange(0, 9_999)], "and it stays, for the rest to come"


# ── damage ──


def test_an_object_that_was_changed_on_the_disk_counts_as_missing_and_can_be_put_again(
    store: Store,
) -> None:
    store.put(CONTENT)
    spoil(store, 5_000)
    assert store.get(BLOB, len(CONTENT)) is None
    assert not store.is_whole(BLOB)
    store.put(CONTENT)
    other = again(store)
    assert other.get(BLOB, len(CONTENT)) == CONTENT
    other.close()


@pytest.mark.parametrize("damage", ["shorter", "empty", "gone"])
def test_a_file_that_lost_bytes_counts_as_missing(store: Store, damage: str) -> None:
    store.put(CONTENT)
    (path,) = (store.folder / "blobs").glob("*-*")
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, 9_999 if damage == "shorter" else 0)
    other = again(store)
    with pytest.raises(IntegrityError, match="the store's file"):
        other.read(BLOB, 0, len(CONTENT))
    assert other.get(BLOB, len(CONTENT)) is None
    assert other.covered(BLOB) == []
    other.close()


def test_reading_what_is_not_here_is_an_integrity_error(store: Store) -> None:
    write(store, (0, 100), (200, 300))
    for start, end in ((50, 150), (150, 160), (250, 350), (5_000, 5_001)):
        with pytest.raises(IntegrityError, match="are not in the store"):
            store.read(BLOB, start, end)
        with pytest.raises(IntegrityError):
            list(store.stream(BLOB, ByteRange(start, end)))


# ── bytes of blobs ──


def test_bytes_come_together_from_wherever_they_lie(store: Store) -> None:
    for start in (3_000, 0, 9_000, 6_000):
        write(
            store,
            (start, start + 1_000),
            (start + 2_000, min(start + 3_000, 10_000)),
            (start + 1_000, min(start + 2_000, 10_000)),
        )
    assert store.covered(BLOB) == [ByteRange(0, 10_000)]
    other = again(store)
    for one in (store, other):
        assert one.read(BLOB, 0, 10_000) == CONTENT
        assert one.read(BLOB, 1_999, 8_001) == CONTENT[1_999:8_001]
        assert b"".join(one.stream(BLOB, ByteRange(500, 9_500))) == CONTENT[500:9_500]
    other.close()


def test_a_long_span_comes_in_pieces_of_bounded_size(store: Store) -> None:
    content = bytes(3 << 20)
    write(store, (0, len(content)), content=content)
    pieces = list(store.stream(BLOB, ByteRange(1, len(content))))
    assert max(map(len, pieces)) <= 1 << 20
    assert sum(map(len, pieces)) == len(content) - 1


def test_bytes_can_be_read_before_they_are_committed(store: Store) -> None:
    writer = store.writer(BLOB, len(CONTENT))
    writer.write(100, CONTENT[100:200])
    assert store.read(BLOB, 120, 180) == CONTENT[120:180]
    assert store.covers(BLOB, ByteRange(100, 200))
    writer.close()


def test_several_writers_of_one_blob_write_each_byte_once(store: Store) -> None:
    fresh: list[int] = []

    def work(worker: int) -> None:
        writer = store.writer(BLOB, len(CONTENT))
        order = range(0, 10_000, 100) if worker % 2 else range(9_900, -1, -100)
        fresh.append(
            sum(span.size for at in order for span in writer.write(at, CONTENT[at : at + 100]))
        )
        writer.close()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(fresh) == len(CONTENT)
    assert store.read(BLOB, 0, len(CONTENT)) == CONTENT
    with again(store) as other:
        assert other.read(BLOB, 0, len(CONTENT)) == CONTENT


# ── eviction ──


def test_evicted_bytes_are_gone_and_their_neighbours_stay(store: Store) -> None:
    write(store, (0, 10_000))
    store.set_whole(BLOB, len(CONTENT))
    store.add_proof(BLOB, OTHER, 5)
    store.evict(BLOB, [ByteRange(100, 200), ByteRange(300, 400)])
    with again(store) as other:
        for one in (store, other):
            assert one.covered(BLOB) == [
                ByteRange(0, 100),
                ByteRange(200, 300),
                ByteRange(400, 10_000),
            ]
            assert one.read(BLOB, 200, 300) == CONTENT[200:300]
            assert not one.is_whole(BLOB)
            assert one.proof(BLOB, OTHER) is None


@pytest.mark.parametrize("is_committed", [True, False])
def test_bytes_that_came_wrong_do_not_come_back_when_their_writer_commits(
    store: Store, is_committed: bool
) -> None:
    wrong = CONTENT[:400] + b"?" * 100 + CONTENT[500:]
    writer = store.writer(BLOB, len(CONTENT))
    writer.write(0, wrong[:1_000])
    if is_committed:
        writer.commit()
    store.evict(BLOB, [ByteRange(400, 500)])
    writer.write(1_000, CONTENT[1_000:2_000])
    assert not store.covers(BLOB, ByteRange(400, 500))
    writer.write(400, CONTENT[400:500])
    writer.close()
    with again(store) as other:
        for one in (store, other):
            assert one.read(BLOB, 0, 2_000) == CONTENT[:2_000]


def test_evicting_takes_nothing_from_what_another_process_keeps(store: Store) -> None:
    write(store, (0, 1_000))
    assert store.covered(BLOB) == [ByteRange(0, 1_000)]
    with again(store) as other:
        write(other, (5_000, 6_000))
        store.evict(BLOB, [ByteRange(0, 10)])
    with again(store) as third:
        assert third.covered(BLOB) == [ByteRange(10, 1_000), ByteRange(5_000, 6_000)]


# ── chunks ──


def test_chunks_are_found_by_digest_where_their_bytes_are(store: Store) -> None:
    write(store, (0, 200))
    store.add_chunks(BLOB, len(CONTENT), [(CHUNK, 50, 100, 999), (CHUNK2, 150, 100, 999)])
    assert store.find_chunks([CHUNK, CHUNK2, b"x" * 32]) == {CHUNK: ChunkLocation(BLOB, 50, 100)}
    assert store.find_chunks([]) == {}
    write(store, (200, 250))
    assert store.find_chunks([CHUNK2]) == {CHUNK2: ChunkLocation(BLOB, 150, 100)}
    assert ChunkLocation(BLOB, 150, 100).span == ByteRange(150, 250)
    store.evict(BLOB, [ByteRange(149, 151)])
    assert store.find_chunks([CHUNK, CHUNK2]) == {}


def test_a_chunk_lost_in_one_blob_is_found_in_another(store: Store) -> None:
    for blob in (BLOB, OTHER):
        write(store, (0, 200), blob=blob)
        store.add_chunks(blob, len(CONTENT), [(CHUNK, 50, 100, 999)])
    for gone, left in ((BLOB, OTHER), (OTHER, BLOB)):
        with again(store) as one:
            one.evict(gone, [ByteRange(0, 200)])
            assert one.find_chunks([CHUNK]) == {CHUNK: ChunkLocation(left, 50, 100)}
            write(one, (0, 200), blob=gone)


def test_promises_that_were_taken_back_are_not_found(store: Store) -> None:
    write(store, (0, 200))
    store.add_chunks(BLOB, len(CONTENT), [(CHUNK, 0, 100, 999), (CHUNK2, 100, 100, 999)])
    store.drop_chunks(BLOB, [CHUNK])
    assert store.find_chunks([CHUNK, CHUNK2]) == {CHUNK2: ChunkLocation(BLOB, 100, 100)}
    assert store.chunks_of(BLOB) == [(CHUNK2, 100, 100, 999)]
    assert store.covers(BLOB, ByteRange(0, 200)), "the bytes are not to blame"


# ── names and hosts ──


def test_images_by_name(store: Store) -> None:
    store.set_image("host/app:1", "linux/amd64", BLOB, OTHER)
    store.set_image("host/app:2", "linux/amd64", BLOB, BLOB)
    with again(store) as other:
        assert [image.name for image in other.images()] == ["host/app:2", "host/app:1"]
        image = other.images()[1]
        assert image == Image("host/app:1", "linux/amd64", BLOB, OTHER, image.pulled)


def test_what_a_host_can_do_is_remembered(store: Store) -> None:
    assert store.recall("registry:5000") is None
    store.learn("registry:5000", 20)
    store.learn("registry:5000", 1)
    with again(store) as other:
        assert other.recall("registry:5000") == 1


@pytest.mark.parametrize(
    ("spans", "hours", "found"), [(20, 24, 20), (20, 24 * 8, None), (0, 0.5, 0), (0, 2, None)]
)
def test_what_was_learnt_of_a_host_grows_old(
    spans: int, hours: float, found: int | None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.learn("registry:5000", spans)
    now = time.time() + hours * 3600
    with again(store) as other:
        monkeypatch.setattr("zchunked.store.link_memory.time.time", lambda: now)
        assert other.recall("registry:5000") == found


# ── processes ──


def test_two_stores_on_one_folder_write_the_same_blob_and_both_end_right(store: Store) -> None:
    with again(store) as other:
        mine, theirs = store.writer(BLOB, len(CONTENT)), other.writer(BLOB, len(CONTENT))
        for at in range(0, 5_000, 500):
            mine.write(at, CONTENT[at : at + 500])
            theirs.write(at + 2_500, CONTENT[at + 2_500 : at + 3_000])
        mine.close()
        theirs.close()
        assert store.read(BLOB, 0, 5_000) == CONTENT[:5_000]
        assert other.read(BLOB, 2_500, 7_500) == CONTENT[2_500:7_500]
    with again(store) as third:
        assert third.read(BLOB, 0, 7_500) == CONTENT[:7_500]


KILLED = """
import os, sys
from pathlib import Path
from zchunked.oci.digest import digest_of
from zchunked.store import Store

content = bytes(number * 31 % 251 for number in range(10_000))
store = Store(Path(sys.argv[1]))
idle = store.writer(digest_of(b"nothing of this came"), 10)
writer = store.writer(digest_of(content), len(content))
for at in (0, 100, 5_000, 200):
    writer.write(at, content[at : at + 100])
os.kill(os.getpid(), 9)
"""


def test_after_kill_9_the_next_process_has_every_byte(tmp_path: Path) -> None:
    for _ in range(2):
        child = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
        assert child.returncode == -9
    with Store(tmp_path) as store:
        assert store.covered(BLOB) == [ByteRange(0, 300), ByteRange(5_000, 5_100)]
        assert store.read(BLOB, 0, 300) == CONTENT[:300]
    with Store(tmp_path) as store:
        assert store.read(BLOB, 5_000, 5_100) == CONTENT[5_000:5_100]
        assert not list((tmp_path / "blobs").glob("*.map"))


def test_a_closed_store_leaves_only_its_files(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put(CONTENT)
    names = {path.suffix for path in (tmp_path / "blobs").iterdir()}
    assert names == {""}


def test_files_that_nothing_claims_are_removed_and_no_others(store: Store) -> None:
    store.put(CONTENT)
    blobs = store.folder / "blobs"
    (blobs / "dead-1").write_bytes(b"left by somebody")
    (blobs / "dead-2").write_bytes(b"its journal was not read yet")
    (blobs / "dead-2.map").write_bytes(b"")
    writer = store.writer(OTHER, 100)
    writer.write(0, bytes(50))
    with again(store) as other:
        (blobs / "dead-2.map").write_bytes(b"")
        assert other.drop_unclaimed() == 1
    assert store.read(OTHER, 0, 50) == bytes(50)
    writer.close()
    assert {path.name for path in blobs.glob("dead*")} == {"dead-2", "dead-2.map"}
    with again(store) as other:
        assert other.get(BLOB, len(CONTENT)) == CONTENT
        assert other.read(OTHER, 0, 50) == bytes(50)


def test_extents_whose_file_is_gone_are_dropped(store: Store) -> None:
    write(store, (0, 1_000))
    write(store, (2_000, 3_000))
    first, second = [file for _, _, file, _ in store._index.extents(BLOB)]
    (store.folder / "blobs" / first).unlink()
    os.truncate(store.folder / "blobs" / second, 400)
    with again(store) as other:
        assert other.drop_lost(BLOB) == [ByteRange(0, 1_000), ByteRange(2_400, 3_000)]
        assert other.covered(BLOB) == [ByteRange(2_000, 2_400)]
        assert other.drop_lost(BLOB) == []


# ── trouble ──


def test_a_folder_that_is_a_file_is_a_local_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(LocalError, match="cannot use the store at"):
            Store(folder)


def test_a_broken_index_is_a_local_error_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"junk" * 1000)
    with pytest.raises(LocalError, match="the store's index"):
        Store(tmp_path)
    assert (tmp_path / "index.sqlite").read_bytes() == b"junk" * 1000
    assert not list((tmp_path / "blobs").iterdir()), "the session that could not begin has ended"
