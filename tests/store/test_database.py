"""The index: what was committed is there for the next process, and two may write at once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import LocalError
from zchunked.oci.digest import Digest, digest_of, raw
from zchunked.ranges import ByteRange
from zchunked.store.extents import ExtentMap
from zchunked.store.index.database import Index

A, B = digest_of(b"a"), digest_of(b"b")
CHUNKS = [raw(digest_of(bytes([number]))) for number in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    found = Index(path)
    yield found
    found.close()


def again(path: Path) -> Index:
    """As another process sees it."""
    return Index(path)


def test_what_was_entered_is_there_for_the_next(path: Path, index: Index) -> None:
    index.add_extents(A, 100, [(50, 60, "f-1", 0), (0, 10, "f-1", 10)])
    index.add_chunks(A, 100, [(CHUNKS[0], 0, 10, 99)])
    index.set_whole(B, 5)
    index.add_proof(A, B, 1234)
    index.set_ref("host/app:t", "linux/amd64", A, B)
    other = again(path)
    assert other.extents(A) == [(0, 10, "f-1", 10), (50, 60, "f-1", 0)]
    assert other.extents(B) == []
    (found,) = rows_of(other, sorted(CHUNKS))
    assert (sorted(CHUNKS)[found[0]], other.blob(found[1]), *found[2:]) == (CHUNKS[0], A, 0, 10)
    assert other.chunks_of(A) == [(CHUNKS[0], 0, 10, 99)]
    assert other.blobs() == [(A, 100, False), (B, 5, True)]
    assert (other.whole_size(A), other.whole_size(B)) == (None, 5)
    assert (other.proof(A, B), other.proof(B, A)) == (1234, None)
    assert [(one.name, one.platform, one.manifest, one.root) for one in other.images()] == [
        ("host/app:t", "linux/amd64", A, B)
    ]
    removed: list[str] = []
    assert (other.remove_unclaimed(["f-1", "f-2"], removed.append), removed) == (1, ["f-2"])
    other.close()


def test_a_run_that_was_entered_half_grows_and_never_shrinks(index: Index) -> None:
    for end in (10, 30, 20):
        index.add_extents(A, 100, [(0, end, "f-1", 0)])
    assert index.extents(A) == [(0, 30, "f-1", 0)]


SPANS = st.builds(
    lambda start, size: ByteRange(start, start + size), st.integers(0, 60), st.integers(1, 20)
)


@given(st.lists(SPANS, max_size=6), st.lists(SPANS, max_size=4))
def test_cutting_forgets_these_bytes_and_no_others(
    added: list[ByteRange], wrong: list[ByteRange]
) -> None:
    index = Index(Path("nowhere"), reads_only=True)
    at = 0
    want = set()
    for span in added:
        index.add_extents(A, 100, [(span.start, span.end, "f", at)])
        want |= {(place, at + place - span.start) for place in range(span.start, span.end)}
        at += span.size
    index.cut_extents(A, wrong)
    gone = {place for span in wrong for place in range(span.start, span.end)}
    rows = index.extents(A)
    assert {
        (place, at + place - start) for start, end, _, at in rows for place in range(start, end)
    } == {(place, at) for place, at in want if place not in gone}
    index.close()


def test_cutting_a_blob_takes_its_proofs_and_its_wholeness(index: Index) -> None:
    index.add_extents(A, 100, [(0, 100, "f", 0)])
    for blob in (A, B):
        index.set_whole(blob, 100)
        index.add_proof(blob, A, 1000)
    index.cut_extents(A, [ByteRange(99, 100)])
    assert (index.whole_size(A), index.whole_size(B)) == (None, 100)
    assert (index.proof(A, A), index.proof(B, A)) == (None, 1000)
    index.cut_extents(digest_of(b"unknown"), [ByteRange(0, 1)])


def test_taking_promises_back(index: Index) -> None:
    index.add_chunks(A, 100, [(chunk, number * 10, 10, 99) for number, chunk in enumerate(CHUNKS)])
    index.add_chunks(B, 100, [(CHUNKS[0], 0, 10, 99)])
    index.drop_chunks(A, CHUNKS[:2])
    asked = sorted(CHUNKS[:3])
    named = sorted(
        (asked[which], index.blob(number), *where)
        for which, number, *where in rows_of(index, asked)
    )
    assert named == sorted([(CHUNKS[0], B, 0, 10), (CHUNKS[2], A, 20, 10)])


def rows_of(index: Index, digests: list[bytes]) -> list[tuple[int, int, int, int]]:
    return [
        row
        for columns in index.find_keys("chunks", "digest", 32, digests)
        for row in zip(*columns, strict=True)
    ]


def proofs(index: Index, *layers: Digest) -> list[bool]:
    return [index.is_proved(layer) for layer in layers]


def test_a_proof_goes_with_what_it_rests_on_and_no_other(index: Index) -> None:
    one, two, whole = (digest_of(name) for name in (b"one", b"two", b"whole"))
    index.add_extents(A, 100, [(0, 100, "f", 0)])
    index.add_chunks(A, 100, [(CHUNKS[0], 0, 10, 99), (CHUNKS[1], 10, 10, 99)])

    def prove() -> None:
        index.add_proof(one, A, 1, [one, A])
        index.add_proof(two, A, 1, [two, B])
        index.add_proof(whole, A, 1)

    hurts: list[tuple[Callable[[], object], list[bool]]] = [
        (lambda: index.drop_chunks(A, CHUNKS[1:2]), [False, True, True]),
        (lambda: index.drop_chunks(A, ()), [False, True, True]),
        (lambda: index.drop_chunks(B, CHUNKS), [True, False, True]),
        (lambda: index.drop_chunks(whole, CHUNKS), [True, True, True]),
        # no chunk lay there
        (lambda: index.cut_extents(A, [ByteRange(50, 60)]), [True, True, True]),
        (lambda: index.cut_extents(A, [ByteRange(50, 60), ByteRange(9, 10)]), [False, True, True]),
        (lambda: index.drop_proofs(two), [True, False, True]),
    ]
    for hurt, left in hurts:
        prove()
        hurt()
        assert proofs(index, one, two, whole) == left


def test_a_layer_that_came_whole_later_rests_on_nothing_more(index: Index) -> None:
    index.add_proof(B, A, 1, [A, B])
    index.add_proof(B, A, 1)
    index.drop_chunks(A, ())
    assert index.is_proved(B)


def test_more_chunks_than_a_statement_takes(index: Index) -> None:
    many = [number.to_bytes(32, "big") for number in range(40_000)]
    index.add_chunks(A, 10**9, [(chunk, number, 1, 1) for number, chunk in enumerate(many)])
    rows = rows_of(index, many)
    assert [which for which, *_ in rows] == [start for _, _, start, _ in rows] == [*range(40_000)]


def test_few_statements_for_many_rows(index: Index) -> None:
    """Each step of a statement lets go of the interpreter, and may have to wait for it."""
    statements: list[str] = []
    index._db.set_trace_callback(statements.append)
    index.add_chunks(
        A, 10**9, [(number.to_bytes(32, "big"), number, 1, 1) for number in range(10_000)]
    )
    index.add_extents(
        A, 10**9, [(2 * number, 2 * number + 1, "f", number) for number in range(10_000)]
    )
    assert len(statements) < 50


def test_numbers_of_any_size_stay_what_they_are(index: Index) -> None:
    most, (low, high) = 2**63 - 1, sorted(CHUNKS[:2])
    index.add_chunks(A, most, [(low, most - 1, 1, most), (high, 0, most, 0)])
    assert index.chunks_of(A) == [(high, 0, most, 0), (low, most - 1, 1, most)]
    assert rows_of(index, [low, high]) == [(0, 1, most - 1, 1), (1, 1, 0, most)]
    index.add_extents(A, most, [(most - 5, most, "f", most - 7)])
    assert index.extents(A) == [(most - 5, most, "f", most - 7)]


def test_a_name_means_the_last_thing_it_was_set_to(index: Index) -> None:
    index.set_ref("app", "linux/amd64", A, A)
    index.set_ref("app", "linux/arm64", A, A)
    index.set_ref("app", "linux/amd64", B, B)
    assert [(one.platform, one.manifest) for one in index.images()] == [
        ("linux/amd64", B),
        ("linux/arm64", A),
    ], "newest first"


@pytest.mark.parametrize(
    "content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4000]
)
def test_a_file_that_is_no_index_is_a_local_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LocalError, match="the store's index"):
        Index(path)


def test_an_index_of_another_version_is_left_alone(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=999")
    database.close()
    with pytest.raises(LocalError, match="version of zpull; use another --store"):
        Index(path)


def test_a_failure_within_a_change_undoes_it(index: Index) -> None:
    with pytest.raises(LocalError):
        index.add_extents(A, 100, [(0, 10, "f", 0), (10, 20, None, 10)])  # type: ignore[list-item]
    assert index.extents(A) == []
    index.add_extents(A, 100, [(0, 10, "f", 0)])
    assert index.extents(A) == [(0, 10, "f", 0)]


def test_many_open_and_write_one_new_index_at_once(path: Path) -> None:
    failures: list[Exception] = []
    start = threading.Barrier(8)

    def work(worker: int) -> None:
        try:
            start.wait()
            own = Index(path)
            for number in range(10):
                own.add_extents(
                    A,
                    10**6,
                    [
                        (
                            worker * 1000 + number * 10,
                            worker * 1000 + number * 10 + 10,
                            str(worker),
                            number * 10,
                        )
                    ],
                )
            own.close()
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found, other = ExtentMap(), again(path)
    for row in other.extents(A):
        found.add(*row)
    other.close()
    assert found.covered() == [ByteRange(worker * 1000, worker * 1000 + 100) for worker in range(8)]
