"""Pulls that end at any byte.

The next one goes on there, asks for no byte twice, and ends right.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.build.front import Image, chunked_layer, every, gzip_layer, image, make_tar
from tests.helpers.harness.hostile import (
    CHUNK,
    Bench,
    bench,
    flips,
    honest,
    noise,
    old_image,
    victim,
    victim_tar,
)
from tests.helpers.harness.pulls import open_store
from zchunked.download.blobs.arrival import Arrivals
from zchunked.download.retries.retry import Stopped
from zchunked.errors import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    TransferError,
    TransientError,
    ZPullError,
)
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor
from zchunked.options import GapOptions
from zchunked.ranges import ByteRange, merge, total

METERED, EXACT = GapOptions(max_gap=0), GapOptions(exact=True)
KINDS = {"whole": EXACT, "in parts": METERED}


class Wire:
    """Notes each byte of a blob that was sent.

    Fails before the piece number `fails`, counted over all pulls.
    """

    def __init__(
        self, fails: Callable[[int], bool], error: Callable[[str], ZPullError] = TransientError
    ) -> None:
        self.sent: Counter[tuple[str, int]] = Counter()
        self._fails, self._error = fails, error
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def __call__(self, blob: Descriptor, at: int, piece: bytes) -> bytes:
        with self._lock:
            if self._fails(next(self._numbers)):
                raise self._error("the line broke")
            self.sent.update((blob.digest, position) for position in range(at, at + len(piece)))
            return piece

    @property
    def was_thrifty(self) -> bool:
        """No byte came twice."""
        return max(self.sent.values()) == 1

    def sent_of(self, digest: str) -> int:
        return sum(1 for blob, _ in self.sent if blob == digest)


def smooth(content: Image, folder: Any, start: str, **options: Any) -> int:
    """Bytes of blobs that an undisturbed pull takes."""
    with bench(folder, start) as on:
        on.pull(content, **options)
        assert on.last is not None
        return on.last.blob_bytes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", ["cold", "warm"])
def test_pull_that_breaks_every_few_pieces(tmp_path: Path, start: str, kind: str) -> None:
    """However often: in the end every byte was sent once, and as many as without a break."""
    content, gaps = honest(), KINDS[kind]
    wanted = smooth(content, tmp_path / "smooth", start, gaps=gaps)
    wire = Wire(lambda number: number % 30 == 0)
    with bench(tmp_path / "rough", start) as on:
        for attempt in range(20):
            try:
                outcome = on.pull(content, change=wire, gaps=gaps)
                break
            except TransferError:
                if attempt % 2:
                    on.reopen()  # else the same process goes on
        else:
            pytest.fail("never done")
        on.is_right(outcome, content)
        assert outcome.receipt.bytes.wasted == 0
    assert wire.was_thrifty
    assert wire.sent.total() == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [1, 3, 60, 120])
def test_resume_after_one_break(tmp_path: Path, kind: str, piece: int) -> None:
    content, gaps = honest(), KINDS[kind]
    wire = Wire(lambda number: number == piece)
    with bench(tmp_path, "cold") as on:
        with pytest.raises(TransferError, match="the line broke"):
            on.pull(content, change=wire, gaps=gaps)
        on.has_nothing_of(content)
        on.reopen()
        outcome = on.pull(content, change=wire, gaps=gaps)
        on.is_right(outcome, content)
        spent = outcome.receipt.bytes
        assert spent.wasted == 0
    assert wire.was_thrifty


def test_resume_of_a_whole_layer_with_another_plan(tmp_path: Path) -> None:
    """What a whole layer left is good for its parts, and the other way round."""
    content = honest()
    for number, (first, second) in enumerate(
        [(EXACT, METERED), (METERED, EXACT), (EXACT, GapOptions()), (METERED, GapOptions())]
    ):
        wire = Wire(lambda number: number == 70)
        with bench(tmp_path / str(number), "cold") as on:
            with pytest.raises(TransferError):
                on.pull(content, change=wire, gaps=first)
            on.reopen()
            outcome = on.pull(content, change=wire, gaps=second)
            on.is_right(outcome, content)
            assert outcome.receipt.bytes.wasted == 0
        assert wire.was_thrifty


def killed(folder: Path, content: Image, wire: Wire, gaps: GapOptions) -> Path:
    """The store as a kill -9 leaves it in the midst of a piece.

    Nothing was closed or committed for the occasion.
    """
    there = folder / "killed"

    def change(blob: Descriptor, at: int, data: bytes) -> bytes:
        try:
            return wire(blob, at, data)
        except TransientError:
            shutil.copytree(folder / "store", there / "store")
            raise

    with bench(folder, "cold") as on, pytest.raises(TransferError):
        on.pull(content, change=change, gaps=gaps, jobs=1)
    return there


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [20, 90])
def test_resume_after_a_kill(tmp_path: Path, kind: str, piece: int) -> None:
    content = honest()
    wire = Wire(lambda number: number == piece)
    with bench(killed(tmp_path, content, wire, KINDS[kind]), "cold") as on:
        outcome = on.pull(content, change=wire, gaps=KINDS[kind], jobs=1)
        on.is_right(outcome, content)
        assert outcome.receipt.bytes.wasted == 0
    assert wire.was_thrifty


@pytest.mark.parametrize("kind", KINDS)
def test_resume_with_a_journal_cut_short(tmp_path: Path, kind: str) -> None:
    """After a power loss the last records may be half there.

    What they said is fetched again and nothing breaks.
    """
    content = honest()
    there = killed(tmp_path, content, Wire(lambda number: number == 80), KINDS[kind])
    journals = list((there / "store" / "blobs").glob("*.map"))
    assert journals
    for journal in journals:
        journal.write_bytes(journal.read_bytes()[:-5])
    with bench(there, "cold") as on:
        on.is_right(on.pull(content, gaps=KINDS[kind]), content)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [NotFoundError, AccessDeniedError, IntegrityError, TransferError])
def test_resume_after_a_failure_that_is_final(tmp_path: Path, kind: str, error: Any) -> None:
    """The registry turns us away in the midst; later it lets us in again."""
    content, gaps = honest(), KINDS[kind]
    wire = Wire(lambda number: number == 60, error)
    with bench(tmp_path, "cold") as on:
        with pytest.raises(error, match="the line broke"):
            on.pull(content, change=wire, gaps=gaps)
        on.has_nothing_of(content)
        on.is_right(on.pull(content, change=wire, gaps=gaps), content)
    assert wire.was_thrifty


@pytest.mark.parametrize("kind", KINDS)
def test_break_in_one_of_three_layers(tmp_path: Path, kind: str) -> None:
    """The others' bytes stay, whatever state they were in."""
    layers = [
        gzip_layer(noise(50_000, 40)),
        victim(),
        chunked_layer(make_tar({"x": noise(50_000, 41)}), cut=every(CHUNK)),
    ]
    content = image(layers)
    for piece in (30, 120):
        wire = Wire(lambda number, piece=piece: number == piece)  # type: ignore[misc]
        with bench(tmp_path / str(piece), "warm") as on:
            with pytest.raises(TransferError):
                on.pull(content, change=wire, gaps=KINDS[kind], jobs=4)
            on.reopen()
            outcome = on.pull(content, change=wire, gaps=KINDS[kind], jobs=4)
            on.is_right(outcome, content)
        assert wire.was_thrifty


def test_break_while_the_config_comes(tmp_path: Path) -> None:
    content = image([victim()], config_extra={"comment": "c" * 9000})
    wire = Wire(lambda number: number == 4)
    with bench(tmp_path, "cold") as on:
        with pytest.raises(TransferError):
            on.pull(content, change=wire)
        outcome = on.pull(content, change=wire)
        on.is_right(outcome, content)
        assert outcome.receipt.bytes.wasted == 0
    assert wire.was_thrifty


@pytest.mark.parametrize("position", [0, 500, 1500])
def test_break_while_toc_and_tar_split_come(tmp_path: Path, position: int) -> None:
    content = honest()
    layer = content.layers[0]
    assert layer.toc_at is not None
    wire = Wire(lambda _: False)
    broken: list[int] = []

    def change(blob: Descriptor, at: int, piece: bytes) -> bytes:
        hit = layer.toc_at is not None and at <= layer.toc_at.offset + position < at + len(piece)
        if hit and blob.digest == layer.digest and not broken:
            broken.append(at)
            raise TransientError("the line broke")
        return wire(blob, at, piece)

    with bench(tmp_path, "warm") as on:
        with pytest.raises(TransferError):
            on.pull(content, change=change, piece=100)
        outcome = on.pull(content, change=change, piece=100)
        on.is_right(outcome, content)
    assert wire.was_thrifty


def test_damaged_piece_and_a_break(tmp_path: Path) -> None:
    """A wrong chunk is fetched again, and the line breaks meanwhile.

    Only that chunk comes twice.
    """
    content = honest()
    layer = content.layers[0]
    chunk = next(chunk for chunk in layer.chunks if (chunk.file, chunk.at) == ("bin/app", CHUNK))
    flip = flips(layer.digest, range(chunk.start + 50, chunk.end - 50), times=1)
    for piece in (62, 70):
        wire = Wire(lambda number, piece=piece: number == piece)  # type: ignore[misc]

        def change(blob: Descriptor, at: int, data: bytes, wire: Wire = wire) -> bytes:
            return flip(blob, at, wire(blob, at, data))

        with bench(tmp_path / str(piece), "cold") as on:
            with pytest.raises(TransferError):
                on.pull(content, change=change, gaps=METERED)
            on.reopen()
            on.is_right(on.pull(content, change=change, gaps=METERED), content)
        twice = [position for (blob, position), times in wire.sent.items() if times > 1]
        assert all(chunk.start <= position < chunk.end for position in twice)


def test_interrupted_image_and_another_that_shares_with_it(tmp_path: Path) -> None:
    """What came of one image does not confuse the other."""
    other = image(
        [chunked_layer(make_tar({"z": b"z" * 5000})[:-1024] + victim_tar(), cut=every(CHUNK))]
    )
    wire = Wire(lambda number: number == 90)
    with bench(tmp_path, "cold") as on:
        with pytest.raises(TransferError):
            on.pull(honest(), change=wire, gaps=METERED)
        on.reopen()
        outcome = on.pull(other, "example.com/other:t", change=wire, gaps=METERED)
        on.is_right(outcome, other)
        on.is_right(on.pull(honest(), change=wire, gaps=METERED), honest())


def test_two_pulls_of_one_image_at_once(tmp_path: Path) -> None:
    """Two stores on one folder, as two processes have; neither disturbs the other."""
    content = honest()
    with bench(tmp_path, "warm") as on:
        other = Bench(tmp_path, open_store(tmp_path), "warm")
        failures: list[BaseException] = []

        def run() -> None:
            try:
                other.is_right(other.pull(content, "example.com/two:t"), content)
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        on.is_right(on.pull(content), content)
        thread.join()
        other.store.close()
        assert not failures
        on.reopen()
        on.is_right(on.pull(content), content)
        on.is_right(on.pull(old_image(), "example.com/old:t"), old_image())


def test_the_receipt_of_a_resumed_pull(tmp_path: Path) -> None:
    """The second receipt speaks of what the second pull fetched, and calls the rest cached."""
    content = honest()
    layer = content.layers[0]
    wire = Wire(lambda number: number == 70)
    with bench(tmp_path, "cold") as on:
        with pytest.raises(TransferError):
            on.pull(content, change=wire, gaps=EXACT)
        covered = on.store.covered(Digest(layer.digest))
        outcome = on.pull(content, change=wire, gaps=EXACT)
        entry = outcome.receipt.layers[0]
        assert entry.mode == "whole"
        assert entry.cached_bytes == total(covered)
        assert entry.fetched_bytes == layer.size - total(covered)
        assert outcome.receipt.bytes.cached == total(covered) + len(content.config)
        assert merge(on.store.covered(Digest(layer.digest))) == [ByteRange(0, layer.size)]


@pytest.mark.parametrize("part", ["toc_at", "tar_split_at"])
def test_metadata_that_comes_damaged_is_asked_for_again_in_one_request(
    tmp_path: Path, part: str
) -> None:
    """What lies between the two parts is no reason for two."""
    layer = victim()
    assert layer.toc_at is not None
    assert layer.tar_split_at is not None
    at = getattr(layer, part)
    change = flips(layer.digest, range(at.offset + 5, at.offset + 6), times=1)
    with bench(tmp_path, "metered") as on:
        on.is_right(on.pull(image([layer]), change=change), image([layer]))
        assert on.last is not None
        asked = [spans for digest, spans in on.last.asked if digest == layer.digest]
        whole = ByteRange(layer.toc_at.offset, layer.tar_split_at.end)
        again = whole if part == "toc_at" else ByteRange(at.offset, at.end)  # a good TOC stays
        assert [spans for spans in asked if spans[0].end > whole.start] == [(whole,), (again,)]


def test_whoever_waits_for_bytes_learns_at_once_that_the_pull_has_ended() -> None:
    stop, ended = threading.Event(), threading.Event()
    arrivals = Arrivals(stop)
    blob = Digest(victim().digest)
    mark = arrivals.of(blob).watermark
    mark.expect([(ByteRange(0, 10),)])
    waits, long_wait = threading.Event(), mark._changed.wait

    def wait(_: float) -> bool:
        waits.set()
        return long_wait(60)

    def work() -> None:
        with pytest.raises(Stopped):
            arrivals.wait_for(blob, 5)
        ended.set()

    mark._changed.wait = wait  # type: ignore[assignment,method-assign]
    thread = threading.Thread(target=work)
    thread.start()
    assert waits.wait(10)
    stop.set()
    arrivals.wake()
    assert ended.wait(10)
    thread.join()
