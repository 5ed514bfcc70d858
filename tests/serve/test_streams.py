"""A blob streamed while it arrives is right, or has no end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.build.front import Layer, gzip_layer, make_tar
from tests.helpers.build.stored import keep_whole
from tests.helpers.harness.hostile import flipped, noise
from zchunked.errors import IntegrityError, TransferError
from zchunked.oci.digest import Digest
from zchunked.ranges import ByteRange
from zchunked.serve.api.streams import Blob, CheckedBlobs, Flight
from zchunked.store import Store


class Arriving:
    """What a pull has of one blob so far, as a reader sees it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.round = data, 0

    def rounds(self, _: Digest) -> int:
        return self.round

    def is_proved(self, _: Digest) -> bool:
        return False

    def read(self, _: Store, __: Digest, start: int, end: int) -> bytes:
        return self.data[start:end]

    def follow(self, store: Store, digest: Digest, start: int, end: int) -> bytes:
        return self.read(store, digest, start, end)


@pytest.fixture
def layer() -> Layer:
    return gzip_layer(make_tar({"file": noise(300_000, 1)}))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as opened:
        yield opened


def stream_of(layer: Layer, store: Store, arriving: Arriving) -> Iterator[bytes]:
    flight = Flight("example.com/app", Digest(layer.digest))
    flight.partial_blobs = arriving  # type: ignore[assignment]
    blob = Blob(store, Digest(layer.digest), layer.size, flight)
    return blob.stream(ByteRange(0, layer.size), is_held=True)


def test_another_process_may_bring_the_end(layer: Layer, store: Store) -> None:
    stream = stream_of(layer, store, Arriving(layer.blob))
    begun = next(stream)
    keep_whole(store, layer)
    assert begun + b"".join(stream) == layer.blob


def test_no_end_of_another_process_follows_a_wrong_beginning(layer: Layer, store: Store) -> None:
    stream = stream_of(layer, store, Arriving(flipped(layer.blob, 1000)))
    begun = next(stream)
    keep_whole(store, layer)
    with pytest.raises(TransferError, match="came wrong"):
        begun += b"".join(stream)
    assert len(begun) < layer.size


def test_a_blob_that_comes_again_before_a_byte_was_sent_is_sent(layer: Layer, store: Store) -> None:
    arriving = Arriving(b"")

    def read(_: Store, __: Digest, start: int, end: int) -> bytes:
        is_again, arriving.round = arriving.round > 0, 1
        return layer.blob[start:end] if is_again else b""

    arriving.read = read  # type: ignore[method-assign]
    stream = stream_of(layer, store, arriving)
    begun = next(stream)
    keep_whole(store, layer)
    assert begun + b"".join(stream) == layer.blob


def test_what_the_disk_has_damaged_has_no_end_and_is_dropped(
    layer: Layer, store: Store, tmp_path: Path
) -> None:
    keep_whole(store, layer)
    digest = Digest(layer.digest)
    blob = Blob(store, digest, layer.size, None, CheckedBlobs())
    assert b"".join(blob.stream(ByteRange(0, layer.size), is_held=True)) == layer.blob
    (file,) = (path for path in (tmp_path / "blobs").iterdir() if path.suffix == "")
    file.write_bytes(flipped(file.read_bytes(), 1000))
    blob = Blob(store, digest, layer.size, None, CheckedBlobs())
    sent: list[bytes] = []
    with pytest.raises(IntegrityError, match="damaged on the disk"):
        sent += blob.stream(ByteRange(0, layer.size), is_held=True)
    assert sum(map(len, sent)) < layer.size
    assert not store.is_whole(digest)


def test_a_stored_blob_is_hashed_once_in_a_while() -> None:
    now = [0.0]
    checked = CheckedBlobs(lambda: now[0])
    digest = Digest("sha256:" + "1" * 64)
    assert checked.is_due(digest)
    checked.note(digest)
    now[0] = 599
    assert not checked.is_due(digest)
    now[0] = 601
    assert checked.is_due(digest)
