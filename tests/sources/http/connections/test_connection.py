"""Bytes of a socket as they are handed over: all that have arrived, and nothing held back."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from zchunked.sources.http.connections.connection import _Reader

CERTS = Path(__file__).parents[1] / "certs"
RECORD = 16 << 10


@pytest.fixture
def tls() -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Both ends of a connection: ours with a time-out, theirs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    trusting = ssl.create_default_context(cafile=CERTS / "ca.crt")
    near, far = socket.socketpair()
    for end in (near, far):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    near.settimeout(5)
    accepted: list[ssl.SSLSocket] = []
    shaking = threading.Thread(
        target=lambda: accepted.append(context.wrap_socket(far, server_side=True))
    )
    shaking.start()
    ours = trusting.wrap_socket(near, server_hostname="localhost")
    shaking.join()
    with ours, accepted[0] as theirs:
        yield ours, theirs


@pytest.fixture
def reader(tls: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> Iterator[io.BufferedReader]:
    """Reads as answers are read."""
    ours, _ = tls
    with ExitStack() as stack:
        raw = stack.enter_context(ours.makefile("rb", buffering=0))
        yield io.BufferedReader(_Reader(ours, raw))


def test_all_records_that_have_arrived_come_at_once(
    tls: tuple[ssl.SSLSocket, ssl.SSLSocket], reader: io.BufferedReader
) -> None:
    data = bytes(range(256)) * (5 * RECORD // 256) + b"end"
    tls[1].sendall(data)
    assert reader.read1(1 << 20) == data


def test_no_more_than_was_asked_for_is_taken_of_the_records(
    tls: tuple[ssl.SSLSocket, ssl.SSLSocket], reader: io.BufferedReader
) -> None:
    data = bytes(range(256)) * (5 * RECORD // 256)
    tls[1].sendall(data)
    assert reader.read1(2 * RECORD + 1) == data[: 2 * RECORD + 1]
    assert reader.read1(1 << 20) == data[2 * RECORD + 1 :]


def test_what_came_is_not_held_back_for_the_rest_of_a_record(
    tls: tuple[ssl.SSLSocket, ssl.SSLSocket], reader: io.BufferedReader
) -> None:
    tls[1].sendall(b"a" * RECORD)
    assert reader.read1(1 << 20) == b"a" * RECORD  # and does not wait the five seconds
    tls[1].sendall(b"b")
    assert reader.read1(1 << 20) == b"b"


def test_a_break_behind_what_came_is_told_after_it(
    tls: tuple[ssl.SSLSocket, ssl.SSLSocket], reader: io.BufferedReader
) -> None:
    tls[1].sendall(b"a" * RECORD)
    with socket.socket(fileno=tls[1].detach()) as plain:
        plain.sendall(b"this is no record of TLS")
    assert reader.read1(1 << 20) == b"a" * RECORD
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            reader.read1(1 << 20)


def test_a_reader_without_a_time_out_waits_again_after_records(
    tls: tuple[ssl.SSLSocket, ssl.SSLSocket],
) -> None:
    tls[0].settimeout(None)
    with tls[0].makefile("rb", buffering=0) as raw:
        reader = io.BufferedReader(_Reader(tls[0], raw))
        tls[1].sendall(b"a")
        assert reader.read1(100) == b"a"
        later = threading.Timer(0.2, lambda: tls[1].sendall(b"b"))
        later.start()
        assert reader.read1(100) == b"b"
        later.join()
