"""The receipt: every byte in exactly one column, in every run."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.build.front import chunked_layer, gzip_layer, image, make_tar
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import Manifest, parse_config, parse_document
from zchunked.receipt import Accounts, ByteCounts, Receipt, image_bytes
from zchunked.sources.traffic import Traffic

BLOBS = [digest_of(bytes([number])) for number in range(3)]
AMOUNTS = st.integers(0, 10**9)
BOOKINGS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(BLOBS), AMOUNTS, AMOUNTS, AMOUNTS),
        st.tuples(st.just("discard"), st.sampled_from(BLOBS), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("document"), st.sampled_from(BLOBS), AMOUNTS, st.just(0), st.just(0)),
        st.tuples(st.just("waste"), st.sampled_from(BLOBS), AMOUNTS, st.just(0), st.just(0)),
    ),
    max_size=20,
)


@given(BOOKINGS)
def test_fetched_is_the_sum_of_the_columns(
    bookings: list[tuple[str, Digest, int, int, int]],
) -> None:
    traffic, accounts, receipt = Traffic(time.monotonic), Accounts(), Receipt("app")
    for kind, blob, a, b, c in bookings:
        if kind == "discard":
            accounts.discard(blob)
            continue
        traffic.asked()
        traffic.received(a + b + c)
        if kind == "add":
            accounts.add(blob, ByteCounts(a, b, c))
        elif kind == "document":
            accounts.document(a)
    receipt.settle(traffic, accounts)
    spent = receipt.bytes
    assert spent.fetched == spent.needed + spent.metadata + spent.gap + spent.wasted
    assert min(spent.fetched, spent.needed, spent.metadata, spent.gap, spent.wasted) >= 0
    assert (receipt.requests, spent.fetched) == (traffic.requests, traffic.fetched)


def test_what_is_taken_back_becomes_waste() -> None:
    traffic, accounts, receipt = Traffic(time.monotonic), Accounts(), Receipt("app")
    traffic.received(300)
    accounts.add(BLOBS[0], ByteCounts(needed=100, gap=50))
    accounts.take_back(BLOBS[0], ByteCounts(needed=40))
    accounts.add(BLOBS[1], ByteCounts(metadata=150))
    accounts.discard(BLOBS[1])
    accounts.discard(BLOBS[2])
    receipt.settle(traffic, accounts)
    spent = receipt.bytes
    assert (spent.needed, spent.metadata, spent.gap, spent.wasted) == (60, 0, 50, 190)


def test_documents_are_metadata_and_a_bad_one_is_taken_back() -> None:
    accounts = Accounts()
    assert accounts.documents == 0
    accounts.document(500)
    accounts.document(300)
    accounts.document(-500)
    assert accounts.documents == 300
    assert accounts.total() == ByteCounts(metadata=300)


def test_settling_twice_is_settling_once() -> None:
    traffic, accounts, receipt = Traffic(time.monotonic), Accounts(), Receipt("app")
    traffic.received(10)
    accounts.document(10)
    for _ in range(2):
        receipt.settle(traffic, accounts)
    assert (receipt.bytes.fetched, receipt.bytes.metadata, receipt.bytes.wasted) == (10, 10, 0)


def test_layers_are_listed_and_a_blob_that_is_listed_twice_was_fetched_once() -> None:
    base, app = gzip_layer(make_tar({"a": b"a"})), chunked_layer(make_tar({"b": b"b"}))
    source = image([base, app, base])
    manifest = parse_document(source.manifest)
    assert isinstance(manifest, Manifest)
    receipt, accounts, traffic = Receipt("app"), Accounts(), Traffic(time.monotonic)
    receipt.list_layers(
        manifest, parse_config(source.config, 3).diff_ids, ["plain", "zstd:chunked", "plain"]
    )
    accounts.fetched(Digest(base.digest), 30)
    accounts.fetched(Digest(base.digest), 12)
    accounts.fetched(Digest(app.digest), 5)
    receipt.settle(traffic, accounts)
    assert [(layer.digest, layer.diff_id, layer.size) for layer in receipt.layers] == [
        (layer.digest, layer.diff_id, layer.size) for layer in source.layers
    ]
    assert [layer.fetched_bytes for layer in receipt.layers] == [42, 5, 0]
    assert receipt.image_id == source.config_digest
    assert (
        receipt.bytes.image
        == image_bytes(manifest)
        == len(source.config) + 2 * base.size + app.size
    )


def test_counting_from_many_threads_loses_nothing() -> None:
    traffic, accounts = Traffic(time.monotonic), Accounts()

    def work() -> None:
        for _ in range(2000):
            traffic.asked()
            traffic.received(3)
            accounts.add(BLOBS[0], ByteCounts(needed=1, gap=2))
            accounts.fetched(BLOBS[0], 3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accounts.total() == ByteCounts(needed=8000, gap=16_000)
    assert (traffic.requests, traffic.fetched, accounts.fetched_of(BLOBS[0])) == (
        8000,
        24_000,
        24_000,
    )
