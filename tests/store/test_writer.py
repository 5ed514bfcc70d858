"""Byte files and their journals.

What was written survives its writer, and nothing else is believed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.build.mutants import mutants
from tests.helpers.build.stored import quick_folder
from zchunked.errors import LocalError
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange, merge, subtract, total
from zchunked.store.extents import ExtentMap
from zchunked.store.files.journal import Rows, boot_id, recover
from zchunked.store.files.writer import Writer
from zchunked.store.processes.session import Session

BLOB = Digest("sha256:" + "1" * 64)
SIZE = 3000
CONTENT = bytes(number * 31 % 251 for number in range(SIZE))


@dataclass
class Process:
    """A session and its writers as one process has them; `die` leaves what kill -9 leaves."""

    folder: Path
    now: float = 0.0
    committed: Rows = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = Session(self.folder)
        self.extents = ExtentMap()

    def writer(self, size: int = SIZE + 500) -> Writer:
        writer = Writer(
            self.folder / self.session.next_file(),
            BLOB,
            size,
            self.extents,
            self.commit,
            clock=lambda: self.now,
        )
        self.writers.append(writer)
        return writer

    def commit(self, blob: Digest, size: int, rows: Rows) -> None:
        assert blob == BLOB
        self.committed += rows

    def die(self) -> None:
        for writer in self.writers:
            os.close(writer._data)
            os.close(writer._journal)
        os.close(self.session._lock)


def recovered(path: Path) -> Rows:
    rows: Rows = []
    for leftover in recover(path):
        assert leftover.blob == BLOB
        rows += leftover.rows
    return rows


def read(path: Path, rows: Rows) -> dict[int, int]:
    """Position in the blob → byte, as the rows say."""
    found: dict[int, int] = {}
    for start, end, file, at in rows:
        data = (path / file).read_bytes()[at : at + end - start]
        assert len(data) == end - start, "a row promises bytes that are not there"
        found.update(zip(range(start, end), data, strict=True))
    return found


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["there", "next"]),
        st.integers(0, SIZE - 1),
        st.integers(1, 400),
        st.floats(0, 0.6),
    ),
    min_size=1,
    max_size=12,
)


TOGETHER = st.integers(1, 5)
"""How many pieces make a haul."""


def hauls(
    pieces: list[tuple[str, int, int, float]], together: int
) -> Iterator[tuple[list[ByteRange], float]]:
    """Where the pieces of each haul lie, and how long to wait after it."""
    at = 0
    for number in range(0, len(pieces), together):
        spans = []
        for kind, position, size, _ in pieces[number : number + together]:
            at = at if kind == "next" and at < SIZE else position
            spans.append(ByteRange(at, min(at + size, SIZE)))
            at = spans[-1].end
        yield spans, pieces[number][3]


def write_all(
    process: Process, pieces: list[tuple[str, int, int, float]], writers: int = 1, together: int = 1
) -> list[ByteRange]:
    own = [process.writer() for _ in range(writers)]
    written: list[ByteRange] = []
    for number, (spans, wait) in enumerate(hauls(pieces, together)):
        fresh = own[number % writers].write_many(
            [(span.start, CONTENT[span.start : span.end]) for span in spans]
        )
        assert merge([*written, *fresh]) == merge([*written, *spans])
        assert total(written) + total(fresh) == total(merge([*written, *fresh])), (
            "nothing is fresh twice"
        )
        written = merge([*written, *fresh])
        process.now += wait
    return written


@given(PIECES, st.integers(1, 3), TOGETHER)
def test_a_closed_writer_has_committed_exactly_what_it_was_given(
    pieces: list[tuple[str, int, int, float]], writers: int, together: int
) -> None:
    with quick_folder() as path:
        process = Process(path)
        written = write_all(process, pieces, writers, together)
        for writer in process.writers:
            writer.close()
        found = read(path, process.committed)
        assert sorted(found) == [place for span in written for place in range(span.start, span.end)]
        assert all(CONTENT[place] == byte for place, byte in found.items())
        assert not list(path.glob("*.map")), "a journal outlives only a kill"
        process.session.close()
        assert recovered(path) == []


@given(PIECES, st.integers(1, 3), TOGETHER)
def test_a_killed_writer_loses_nothing(
    pieces: list[tuple[str, int, int, float]], writers: int, together: int
) -> None:
    with quick_folder() as path:
        process = Process(path)
        written = write_all(process, pieces, writers, together)
        process.die()
        found = read(path, recovered(path))
        assert sorted(found) == [place for span in written for place in range(span.start, span.end)]
        assert all(CONTENT[place] == byte for place, byte in found.items())
        assert recovered(path) == [], "read once, then gone"
        assert not list(path.glob("*.live"))


@given(PIECES, st.integers(0, 500))
def test_a_kill_within_a_write_loses_only_what_was_not_written(
    pieces: list[tuple[str, int, int, float]], torn: int
) -> None:
    with quick_folder() as path:
        process = Process(path)
        written = write_all(process, pieces)
        process.writers[0].write(SIZE, bytes(500))
        file = process.writers[0]._path
        process.die()
        os.truncate(file, file.stat().st_size - torn)
        places = [place for span in written for place in range(span.start, span.end)]
        want = {place: CONTENT[place] for place in places} | dict.fromkeys(
            range(SIZE, SIZE + 500 - torn), 0
        )
        assert read(path, recovered(path)) == want


@given(PIECES, TOGETHER, st.data())
def test_a_kill_between_any_two_bytes_of_a_haul_loses_none_and_claims_none(
    pieces: list[tuple[str, int, int, float]], together: int, data: st.DataObject
) -> None:
    """All records go before the first byte.

    A kill may end the journal anywhere, or else the file.
    """
    with quick_folder() as path:
        process = Process(path)
        writer = process.writer()
        journal = writer._path.with_name(writer._path.name + ".map")
        written: list[ByteRange] = []
        log: list[int] = []  # where in the blob each byte of the file belongs
        ends = [(journal.stat().st_size, 0)]
        for spans, _ in hauls(pieces, together):
            absent = [span for span in spans if subtract([span], written)]
            log += [place for span in absent for place in range(span.start, span.end)]
            writer.write_many([(span.start, CONTENT[span.start : span.end]) for span in spans])
            written = merge([*written, *spans])
            ends.append((journal.stat().st_size, len(log)))
        process.die()
        assert writer._path.read_bytes() == bytes(CONTENT[place] for place in log)
        before, after = data.draw(st.sampled_from(list(pairwise(ends))))
        told, came = after[0], before[1]
        if data.draw(st.booleans(), label="while the records are written"):
            told = data.draw(st.integers(before[0], after[0]))
        else:
            came = data.draw(st.integers(before[1], after[1]))
        os.truncate(journal, told)
        os.truncate(writer._path, came)
        found = read(path, recovered(path))
        assert found == {place: CONTENT[place] for place in log[:came]}


@given(PIECES)
def test_after_a_power_loss_only_committed_rows_count(
    pieces: list[tuple[str, int, int, float]],
) -> None:
    with quick_folder() as path:
        process = Process(path)
        write_all(process, pieces)
        process.die()
        for journal in path.glob("*.map"):
            head, _, body = journal.read_bytes().partition(b"\n")
            told = json.loads(head)
            assert told["boot"] == boot_id()
            journal.write_bytes(json.dumps(told | {"boot": "another"}).encode() + b"\n" + body)
        assert recovered(path) == []
        assert not list(path.glob("*.map"))
        found = read(path, process.committed)
        assert all(CONTENT[place] == byte for place, byte in found.items())


def test_a_haul_may_have_more_pieces_than_one_call_takes(tmp_path: Path) -> None:
    process = Process(tmp_path)
    writer = process.writer()
    places = range(0, SIZE, 2)
    assert len(places) > 1024
    fresh = writer.write_many([(place, memoryview(CONTENT)[place : place + 1]) for place in places])
    assert fresh == [ByteRange(place, place + 1) for place in places]
    process.die()
    assert read(tmp_path, recovered(tmp_path)) == {place: CONTENT[place] for place in places}


def test_commits_come_after_a_second_or_eight_mebibytes(tmp_path: Path) -> None:
    process = Process(tmp_path)
    writer = process.writer(100 << 20)
    writer.write(0, bytes(1000))
    assert process.committed == []
    process.now += 1.0
    writer.write(1000, bytes(1000))
    assert [row[:2] for row in process.committed] == [(0, 2000)]
    for number in range(9):
        writer.write(2000 + (number << 20), bytes(1 << 20))
    assert total(ByteRange(*row[:2]) for row in process.committed) >= 8 << 20
    writer.close()
    process.session.close()


def journal_of(pieces: list[tuple[int, int]]) -> tuple[bytes, int]:
    """An honest journal and the length of its data file."""
    with quick_folder() as path:
        process = Process(path)
        writer = process.writer()
        for start, end in pieces:
            writer.write(start, CONTENT[start:end])
        process.die()
        return writer._path.with_name(
            writer._path.name + ".map"
        ).read_bytes(), writer._path.stat().st_size


HONEST, LENGTH = journal_of([(0, 100), (200, 300), (300, 450), (2000, 3000)])
ODD: list[dict[str, object]] = [
    {"blob": "../x"}, {"blob": None}, {"size": None}, {"size": -1}, {"size": 10**30}, {"size": []},
    {"boot": 5},
]  # fmt: skip
HEADS = [
    b"", b"\n", b"{}\n", b"[]\n", b"null\n", b"5\n", b"{\n", b"[" * 100_000 + b"\n", b"\xff\n",
    b"9" * 5000 + b"\n",
    *(
        json.dumps({"blob": BLOB, "size": SIZE, "boot": boot_id()} | odd).encode() + b"\n"
        for odd in ODD
    ),
    *(
        HONEST.partition(b"\n")[0].replace(b"3500", size) + b"\n"
        for size in (b"Infinity", b"NaN", b"1e999", b"3.5e3")
    ),
]  # fmt: skip
BODIES = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1) | st.integers(0, SIZE),
        st.integers(0, 2**64 - 1) | st.integers(0, LENGTH),
    )
).map(lambda pairs: b"".join(number.to_bytes(8, "little") for pair in pairs for number in pair))


@given(st.one_of(
    mutants(HONEST), st.integers(0, len(HONEST)).map(lambda end: HONEST[:end]),
    BODIES.map(lambda body: HONEST.partition(b"\n")[0] + b"\n" + body),
    st.tuples(st.sampled_from(HEADS), BODIES).map(b"".join), st.binary(),
))  # fmt: skip
def test_a_journal_of_garbage_promises_nothing_that_is_not_there(journal: bytes) -> None:
    with quick_folder() as path:
        (path / "dead-1").write_bytes(bytes(LENGTH))
        (path / "dead-1.map").write_bytes(journal)
        for leftover in recover(path):
            for start, end, file, at in leftover.rows:
                assert 0 <= start < end <= leftover.size < 2**63
                assert file == "dead-1"
                assert at + end - start <= LENGTH
        assert not (path / "dead-1.map").exists()


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
def test_a_head_of_garbage_is_no_journal(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "dead-1").write_bytes(bytes(LENGTH))
    (tmp_path / "dead-1.map").write_bytes(head + HONEST.partition(b"\n")[2])
    assert recovered(tmp_path) == []


@given(st.integers(0, len(HONEST)))
def test_a_journal_cut_short_still_says_the_truth(end: int) -> None:
    with quick_folder() as path:
        data = CONTENT[0:100] + CONTENT[200:300] + CONTENT[300:450] + CONTENT[2000:3000]
        (path / "dead-1").write_bytes(data)
        (path / "dead-1.map").write_bytes(HONEST[:end])
        for leftover in recover(path):
            first = leftover.rows[:-1] if end < len(HONEST) else leftover.rows
            for place, byte in read(path, first).items():
                assert CONTENT[place] == byte


def test_a_journal_without_its_file_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "dead-1.map").write_bytes(HONEST)
    assert recovered(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_journals_of_the_living_are_left_alone(tmp_path: Path) -> None:
    process = Process(tmp_path)
    writer = process.writer()
    writer.write(0, CONTENT[:500])
    assert recovered(tmp_path) == []
    writer.write(500, CONTENT[500:600])
    process.die()
    assert sorted(read(tmp_path, recovered(tmp_path))) == list(range(600))


def test_two_that_recover_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    for _ in range(3):
        process = Process(tmp_path)
        process.writer().write(0, CONTENT[:500])
        process.die()
    rows: Rows = []
    for leftover in recover(tmp_path):
        rows += leftover.rows
        rows += recovered(tmp_path)  # somebody else, in the middle of it
    assert sorted(read(tmp_path, rows)) == list(range(500))


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.writer().close()
    process.session.close()
    assert list(tmp_path.iterdir()) == []


def test_a_session_is_alive_from_its_first_moment(tmp_path: Path) -> None:
    """Whoever cleans up while another process starts must not take its mark for a dead one's."""
    script = (
        "import sys; from pathlib import Path\n"
        "from zchunked.store.processes.session import Session\n"
        "from zchunked.store.files.journal import recover\n"
        "for _ in range(400):\n"
        "    if sys.argv[2] == 'start':\n"
        "        session = Session(Path(sys.argv[1]))\n"
        "        assert list(Path(sys.argv[1]).glob(session.name + '*'))\n"
        "        session.close()\n"
        "    else:\n"
        "        list(recover(Path(sys.argv[1])))\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path, job], stderr=subprocess.PIPE)
        for job in ("start", "clean", "start", "clean")
    ]
    assert [child.communicate()[1].decode() for child in children] == [""] * 4


# ── a disk that is full ──

FILL = """
import os, resource, sys
from pathlib import Path
from zchunked.oci.digest import Digest
from zchunked.errors import LocalError
from zchunked.store import Store

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
store = Store(folder)
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
writer = store.writer(Digest("sha256:" + "1" * 64), 10**9)
together = int(sys.argv[4])
taken = 0
try:
    while True:
        some = range(taken, taken + together)[::-1]
        writer.write_many([(number * 7000, bytes([number % 251]) * 7000) for number in some])
        taken += together
except LocalError as error:
    print(error.exit_code, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:  # there is room again, but what the journal says of the file is what did not get there
    writer.write(10**8, bytes(100))
except LocalError as error:
    print(error, flush=True)
if sys.argv[3] == "close":
    writer.close()
    store.close()
os._exit(0)
"""


@pytest.mark.parametrize("together", [1, 6])
@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_full_disk_keeps_what_it_took(tmp_path: Path, end: str, together: int) -> None:
    from zchunked.store import Store  # noqa: PLC0415 - everything else here does without one

    limit = 400_000
    child = subprocess.run(
        [sys.executable, "-c", FILL, tmp_path, str(limit), end, str(together)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == (
        f"{LocalError.exit_code}\ncannot write to the store: an earlier write to the same "
        "file broke off\n"
    )
    with Store(tmp_path) as store:
        covered = store.covered(BLOB)
        assert total(covered) == limit
        for span in covered:
            data = store.read(BLOB, span.start, span.end)
            assert data == bytes([at // 7000 % 251 for at in range(span.start, span.end)])


def test_a_full_disk_says_so_and_that_nothing_is_lost(tmp_path: Path) -> None:
    process = Process(tmp_path)
    writer = process.writer()
    writer.write(0, CONTENT[:100])
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._data)
    os.close(full)
    with pytest.raises(LocalError, match=r"the disk is full; free some space .* nothing is lost"):
        writer.write(100, CONTENT[100:200])
    process.die()
    assert sorted(read(tmp_path, recovered(tmp_path))) == list(range(100))


def test_no_byte_goes_before_its_record(tmp_path: Path) -> None:
    process = Process(tmp_path)
    writer = process.writer()
    writer.write(0, CONTENT[:100])
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._journal)
    os.close(full)
    with pytest.raises(LocalError):
        writer.write_many([(100, CONTENT[100:200]), (300, CONTENT[300:400])])
    assert writer._path.read_bytes() == CONTENT[:100]
    process.die()
    assert sorted(read(tmp_path, recovered(tmp_path))) == list(range(100))


def test_a_folder_that_cannot_be_written_is_a_local_error(tmp_path: Path) -> None:
    process = Process(tmp_path)
    (tmp_path / f"{process.session.name}-1").write_bytes(b"in the way")
    with pytest.raises(LocalError, match="cannot write to the store"):
        process.writer()
    process.session.close()
