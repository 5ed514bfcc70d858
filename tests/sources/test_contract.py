"""What every source promises, held against each of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.build.front import OCI_MANIFEST, Layout, read_layout
from tests.helpers.build.golden import Golden
from tests.helpers.harness.pulls import AMD64, IMPATIENT, open_store
from tests.helpers.servers.kinds import KINDS, LAYOUTS, Place
from zchunked.errors import (
    FormatError,
    IntegrityError,
    NotFoundError,
    RangeIgnoredError,
    TransferError,
)
from zchunked.interfaces import Source
from zchunked.oci.digest import EMPTY, Digest, digest_of
from zchunked.oci.documents import Descriptor
from zchunked.oci.reference import parse_image
from zchunked.options import Options
from zchunked.pull.origin import Origin
from zchunked.pull.pull import Pull
from zchunked.ranges import ByteRange, merge
from zchunked.receipt import Receipt
from zchunked.sources.layout import LayoutSource
from zchunked.store import Store

DATA = random.Random(5).randbytes(300_000)
SIZE = len(DATA)
BLOB = Descriptor("application/octet-stream", digest_of(DATA), SIZE)
NOTHING = Descriptor("application/octet-stream", EMPTY, 0)
ABSENT = Descriptor("application/octet-stream", digest_of(b"absent"), 1000)
MANIFESTS = [b'{"schemaVersion":2,"number":%d}' % number for number in range(3)]
DIGESTS = [digest_of(data) for data in MANIFESTS]
CONTENT = Layout(
    {"v1": DIGESTS[0], "v2": DIGESTS[1]},
    {digest: (OCI_MANIFEST, data) for digest, data in zip(DIGESTS, MANIFESTS, strict=True)},
    {BLOB.digest: DATA, EMPTY: b""},
)


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def place(kind: str, tmp_path: Path) -> Iterator[Place]:
    with KINDS[kind](CONTENT, tmp_path) as found:
        yield found


@pytest.fixture
def source(place: Place) -> Iterator[Source]:
    found, _ = place.open("v1")
    with closing(found):
        yield found


def read(source: Source, blob: Descriptor, spans: Sequence[ByteRange]) -> list[ByteRange]:
    """One read; what came, each byte compared with what belongs there."""
    came = []
    for pieces in source.read(blob, spans):
        assert pieces
        for position, piece in pieces:
            assert piece
            assert DATA[position : position + len(piece)] == piece
            came.append(ByteRange(position, position + len(piece)))
    return merge(came)


def read_all(
    source: Source, spans: Sequence[ByteRange], blob: Descriptor = BLOB
) -> list[ByteRange]:
    """As many reads as the source wants for these spans."""
    came: list[ByteRange] = []
    left = list(spans)
    while left:
        most = max(1, source.spans_per_request(blob))
        try:
            came += read(source, blob, left[:most])
        except RangeIgnoredError:
            came += read(source, blob, [ByteRange(0, blob.size)])
        left = left[most:]
    return merge(came)


# ── manifests ──


@pytest.mark.parametrize(("tag", "number"), [("v1", 0), ("v2", 1)])
def test_a_tag_names_its_manifest(place: Place, tag: str, number: int) -> None:
    source, traffic = place.open(tag)
    with closing(source):
        document = source.manifest(None)
    assert document.data == MANIFESTS[number]
    assert document.media_type in ("", OCI_MANIFEST)
    if place.served:
        assert place.served() == (traffic.requests, traffic.fetched)
    if not isinstance(source, LayoutSource) or not source.is_local:
        assert traffic.fetched >= document.cost


def test_a_digest_names_its_manifest_whether_listed_or_not(place: Place) -> None:
    for data, digest in zip(MANIFESTS, DIGESTS, strict=True):
        source, _ = place.open(digest=digest)
        with closing(source):
            assert source.manifest(None).data == data


def test_another_manifest_can_be_asked_for_by_digest(source: Source) -> None:
    assert source.manifest(DIGESTS[2]).data == MANIFESTS[2]


def test_what_is_not_there_is_not_found(place: Place) -> None:
    source, _ = place.open("absent")
    with closing(source), pytest.raises(NotFoundError):
        source.manifest(None)
    source, _ = place.open("v1")
    with closing(source), pytest.raises(NotFoundError):
        source.manifest(ABSENT.digest)


# ── blobs ──


@pytest.mark.parametrize(
    "span",
    [ByteRange(0, 1), ByteRange(SIZE - 1, SIZE), ByteRange(1000, 2000), ByteRange(1, SIZE)],
    ids=["first", "last", "middle", "all but one"],
)
def test_one_span_is_that_span_or_the_whole_blob_from_its_beginning(
    source: Source, span: ByteRange
) -> None:
    try:
        came = read(source, BLOB, [span])
    except RangeIgnoredError:
        came = read(source, BLOB, [ByteRange(0, SIZE)])
    assert came in ([span], [ByteRange(0, SIZE)])


def test_many_spans_come_all_of_them(source: Source) -> None:
    spans = [ByteRange(at, at + 700) for at in range(0, SIZE - 700, 1900)]
    for _ in range(2):  # the second time it may know more of the host
        assert read_all(source, spans) in (spans, [ByteRange(0, SIZE)])


def test_a_whole_blob_comes_whole(source: Source) -> None:
    assert read(source, BLOB, [ByteRange(0, SIZE)]) == [ByteRange(0, SIZE)]


def test_of_an_empty_blob_nothing_comes(source: Source) -> None:
    assert read(source, NOTHING, []) == []


def test_a_missing_blob_is_not_found(source: Source) -> None:
    for span in (ByteRange(0, ABSENT.size), ByteRange(5, 10)):
        with pytest.raises(NotFoundError):
            read(source, ABSENT, [span])


@pytest.mark.parametrize(
    "span", [ByteRange(0, SIZE), ByteRange(SIZE - 10, SIZE)], ids=["whole", "end"]
)
def test_a_blob_that_is_cut_short_is_an_error_and_what_came_is_right(
    kind: str, tmp_path: Path, span: ByteRange
) -> None:
    content = replace(CONTENT, blobs={BLOB.digest: DATA[: SIZE // 2]})
    with KINDS[kind](content, tmp_path) as place:
        source, _ = place.open("v1")
        with closing(source), pytest.raises((TransferError, IntegrityError)) as caught:
            read(source, BLOB, [span])
    if isinstance(caught.value, RangeIgnoredError):
        assert span.size < SIZE  # then the whole blob is asked for, and that fails above


def test_eight_threads_read_and_nobody_gets_the_bytes_of_another(source: Source) -> None:
    def work(number: int) -> None:
        for at in range(number * 1000, SIZE - 1000, 30_000):
            span = ByteRange(at, at + 1000)
            assert read_all(source, [span]) in ([span], [ByteRange(0, SIZE)])
        assert source.manifest(None).data == MANIFESTS[0]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


# ── layouts ──


@pytest.mark.parametrize("kind", LAYOUTS, indirect=True)
def test_an_index_that_is_cut_short_is_malformed(kind: str, tmp_path: Path) -> None:
    class Short(Layout):
        def index_json(self) -> bytes:
            return super().index_json()[:-10]

    with KINDS[kind](Short(CONTENT.tags, CONTENT.manifests, CONTENT.blobs), tmp_path) as place:
        source, _ = place.open("v1")
        with closing(source), pytest.raises(FormatError, match=r"index\.json"):
            source.manifest(None)


@pytest.mark.parametrize("kind", LAYOUTS, indirect=True)
def test_a_manifest_that_is_not_what_the_index_says_is_refused(kind: str, tmp_path: Path) -> None:
    spoilt = CONTENT.manifests | {DIGESTS[0]: (OCI_MANIFEST, MANIFESTS[0].replace(b"0", b"9"))}
    with KINDS[kind](replace(CONTENT, manifests=spoilt), tmp_path) as place:
        source, _ = place.open("v1")
        with closing(source), pytest.raises(IntegrityError, match=DIGESTS[0]):
            source.manifest(None)


@pytest.mark.parametrize("kind", LAYOUTS, indirect=True)
def test_a_layout_without_a_tag_is_its_only_image_or_a_choice(kind: str, tmp_path: Path) -> None:
    for count in (1, 2):
        tags = dict(list(CONTENT.tags.items())[:count])
        with KINDS[kind](replace(CONTENT, tags=tags), tmp_path / str(count)) as place:
            source, _ = place.open()
            with closing(source):
                if count == 1:
                    assert source.manifest(None).data == MANIFESTS[0]
                else:
                    with pytest.raises(NotFoundError, match=":v1, :v2"):
                        source.manifest(None)


# ── a whole pull ──


def pull(place: Place, tag: str, store: Store) -> Receipt:
    source, traffic = place.open(tag, hosts=store, documents=store.document)
    before = place.served() if place.served else None
    receipt = Receipt(tag)
    with closing(source):
        name = f"{place.base}:{tag}" if place.base else f"example.com/demo:{tag}"
        options = Options(platform=AMD64, jobs=4, patience=IMPATIENT)
        Pull(
            Origin(parse_image(name), source, traffic), store, options, receipt, lambda _: None
        ).run()
    spent = receipt.bytes
    assert (
        spent.fetched == spent.needed + spent.metadata + spent.gap + spent.wasted == traffic.fetched
    )
    assert min(spent.needed, spent.metadata, spent.gap, spent.wasted) >= 0
    if place.served and before:
        requests, size = place.served()
        assert receipt.requests == requests - before[0]
        # what a server has sent may be cut off on our side
        assert spent.fetched <= size - before[1]
    return receipt


def pull_golden(place: Place, one: Golden, store: Store) -> Receipt:
    receipt = pull(place, one.tag, store)
    assert receipt.image_id == one.expect["config"]["digest"]
    assert receipt.manifest_digest == one.expect["manifest"]["digest"]
    assert [layer.diff_id for layer in receipt.layers] == one.expect["diff_ids"]
    return receipt


def test_an_image_and_its_update_and_nothing_again(kind: str, tmp_path: Path) -> None:
    content = read_layout(Golden("demo", "demo-v1").layout)
    with KINDS[kind](content, tmp_path) as place, open_store(tmp_path) as store:
        receipt = pull_golden(place, Golden("demo", "demo-v1"), store)
        receipt = pull_golden(place, Golden("demo", "demo-v2"), store)
        assert receipt.layers[0].fetched_bytes == 0
        if "without" not in kind:
            assert receipt.bytes.fetched < receipt.bytes.image / 3
        again = pull(place, "demo-v2", store)
        assert {layer.mode for layer in again.layers} == {"cached"}
        assert again.bytes.cached == again.bytes.image
        assert again.bytes.needed == again.bytes.gap == 0
        assert again.bytes.fetched <= 2000
        if place.served and "token" not in kind:
            assert again.requests == 1


@pytest.mark.parametrize(
    "one", [Golden("edge", "edge"), Golden("demo", "plain-gzip"), Golden("demo", "g1-old")], ids=str
)
def test_other_images_too(kind: str, tmp_path: Path, one: Golden) -> None:
    with KINDS[kind](read_layout(one.layout), tmp_path) as place, open_store(tmp_path) as store:
        pull_golden(place, one, store)


def test_a_layer_that_is_damaged_at_the_source_ends_the_pull_and_leaves_nothing_of_it(
    kind: str, tmp_path: Path
) -> None:
    content = read_layout(Golden("demo", "plain-gzip").layout)
    largest = max(
        content.blobs, key=lambda digest: len(content.blobs[digest]) * (digest in _layers(content))
    )
    data = bytearray(content.blobs[largest])
    data[len(data) // 2] ^= 1
    spoilt = replace(content, blobs=content.blobs | {largest: bytes(data)})
    with KINDS[kind](spoilt, tmp_path) as place, open_store(tmp_path) as store:
        with pytest.raises(IntegrityError):
            pull(place, "plain-gzip", store)
        assert store.images() == []
        assert store.covered(Digest(largest)) == []


def _layers(content: Layout) -> set[str]:
    manifest = json.loads(content.manifests[content.tags["plain-gzip"]][1])
    return {layer["digest"] for layer in manifest["layers"]}
