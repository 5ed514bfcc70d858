"""Parts of a blob on its way are handed out as soon as they are here, before proofs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from zchunked.layers.assemble import WrongBlobError
from zchunked.layers.rebuild import at_once
from zchunked.layers.stand_ins import StandIns
from zchunked.oci.digest import parse_digest
from zchunked.oci.documents import Descriptor
from zchunked.pull.partial_blobs import PartialBlobs
from zchunked.serve.api import streams
from zchunked.serve.api.streams import Flight
from zchunked.store import Store

BLOB = parse_digest("sha256:" + "b" * 64, "a test")


def test_what_stands_in_is_read_before_what_comes_first(tmp_path: Path) -> None:
    """Of 300 bytes the last 100 have come, and the 100 before them stand in."""
    stand_ins = StandIns()
    with Store(tmp_path / "store") as store:
        other = store.put(b"x" * 50 + b"s" * 100)
        stand_ins.starts.append(100)
        stand_ins.ends.append(200)
        stand_ins.kinds.append(1)
        stand_ins.blobs.append(other)
        stand_ins.places.append(50)
        parts = PartialBlobs()
        parts.assembly(store, Descriptor("x", BLOB, 300), lambda: stand_ins, at_once)
        assert parts.read(store, BLOB, 0, 300) == b""
        assert parts.read(store, BLOB, 120, 300) == b"s" * 80
        with closing(store.writer(BLOB, 300)) as writer:
            writer.write(200, b"e" * 60)
        assert parts.read(store, BLOB, 120, 300) == b"s" * 80 + b"e" * 60
        assert parts.read(store, BLOB, 210, 250) == b"e" * 40
        assert parts.read(store, BLOB, 99, 300) == b""


def test_who_takes_all_gets_what_the_proof_has_read(tmp_path: Path) -> None:
    """Nothing is read twice, but what is far before the proof, or behind it, or waited for long."""
    size = 12 << 20
    parts = PartialBlobs()
    with Store(tmp_path / "store") as store:
        with closing(store.writer(BLOB, size)) as writer:
            writer.write(0, b"s" * size)
        _, check = parts.assembly(store, Descriptor("x", BLOB, size), StandIns, at_once)

        def follow(start: int) -> bytes:
            return parts.follow(store, BLOB, start, start + 10)

        def blocks() -> Iterator[bytes]:
            assert (follow(0), follow(2 << 20)) == (b"", b"s" * 10)
            yield b"p" * 100
            assert (follow(0), follow(95), follow(100)) == (b"p" * 10, b"p" * 5, b"")
            for _ in range(10):
                yield b"p" * 1000
            assert (follow(0), follow(10_050)) == (b"s" * 10, b"p" * 10)

        with pytest.raises(WrongBlobError):
            check(blocks())
        assert (follow(10_050), follow(10_100)) == (b"s" * 10, b"s" * 10)


def test_a_proof_that_gives_way_is_not_followed(tmp_path: Path) -> None:
    parts, seen = PartialBlobs(), []
    with Store(tmp_path / "store") as store:
        with closing(store.writer(BLOB, 200)) as writer:
            writer.write(0, b"s" * 200)
        _, check = parts.assembly(store, Descriptor("x", BLOB, 200), StandIns, at_once)
        parts.give_way = lambda: seen.append(parts.follow(store, BLOB, 100, 110))
        with pytest.raises(WrongBlobError):
            check(iter([b"p" * 100]))
    assert seen == [b"s" * 10]


def test_nothing_is_proved_while_a_client_takes_parts() -> None:
    flight, parts, goes_on = Flight("demo", BLOB), PartialBlobs(), threading.Event()
    flight.follow(parts)
    parts.give_way()  # no client, no wait
    body = flight.first([b"1", b"2"])
    assert next(body) == b"1"

    def prove() -> None:
        parts.give_way()
        goes_on.set()

    thread = threading.Thread(target=prove)
    thread.start()
    assert not goes_on.wait(0.1)
    body.close()
    assert goes_on.wait(10)
    thread.join()


def test_a_client_that_has_waited_long_lets_proofs_go_on() -> None:
    """Perhaps only a proof finds out that what it waits for has to come again."""
    flight, parts, goes_on = Flight("demo", BLOB), PartialBlobs(), threading.Event()
    flight.follow(parts)
    body = flight.first([b"1", b"2"])
    next(body)

    def prove() -> None:
        parts.give_way()
        goes_on.set()

    thread = threading.Thread(target=prove)
    thread.start()
    flight.wait()
    assert not goes_on.is_set()
    while not goes_on.is_set():
        flight.wait(streams._STARVED_SECONDS + 1)
    thread.join()
    between_two_waits = threading.Thread(target=parts.give_way, daemon=True)
    between_two_waits.start()
    between_two_waits.join(10)
    assert not between_two_waits.is_alive()
    body.close()
