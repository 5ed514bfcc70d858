"""The contract of sources, held against a bucket of a real S3 server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from tests.helpers.build.images import Layout
from tests.helpers.servers import peers, swift
from tests.helpers.servers.kinds import KINDS, Place, place_at
from tests.sources.test_contract import (  # noqa: F401 - they run here as well, on our `kind`
    CONTENT,
    source,
    test_a_blob_that_is_cut_short_is_an_error_and_what_came_is_right,
    test_a_digest_names_its_manifest_whether_listed_or_not,
    test_a_layer_that_is_damaged_at_the_source_ends_the_pull_and_leaves_nothing_of_it,
    test_a_missing_blob_is_not_found,
    test_a_tag_names_its_manifest,
    test_a_whole_blob_comes_whole,
    test_an_image_and_its_update_and_nothing_again,
    test_another_manifest_can_be_asked_for_by_digest,
    test_eight_threads_read_and_nobody_gets_the_bytes_of_another,
    test_many_spans_come_all_of_them,
    test_of_an_empty_blob_nothing_comes,
    test_one_span_is_that_span_or_the_whole_blob_from_its_beginning,
    test_other_images_too,
    test_what_is_not_there_is_not_found,
)

pytestmark = pytest.mark.peer
BUCKET = "contract"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def made(s3: peers.Server) -> peers.Server:
    swift.make_bucket(s3, BUCKET)
    return s3


@pytest.fixture
def kind(made: peers.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    @contextmanager
    def on_swift(content: Layout, _: Path) -> Iterator[Place]:
        prefix = f"place/{next(_numbers)}"
        store = S3Store(
            BUCKET, prefix=prefix, endpoint=made.url, access_key_id=swift.KEY,
            secret_access_key=swift.SECRET, region=swift.REGION,
            client_options={"allow_http": True},
        )  # fmt: skip
        for digest, data in content:
            obstore.put(store, f"blobs/{digest.replace(':', '/')}", data)
        obstore.put(store, "index.json", content.index_json())
        before = len(made.hits())

        def served() -> tuple[int, int]:
            hits = made.hits()[before:]
            return len(hits), sum(hit.sent for hit in hits)

        keys = {
            "AWS_ACCESS_KEY_ID": swift.KEY,
            "AWS_SECRET_ACCESS_KEY": swift.SECRET,
            "AWS_REGION": swift.REGION,
        }
        yield place_at(f"s3://{BUCKET}/{prefix}", served, keys | {"AWS_ENDPOINT_URL": made.url})

    monkeypatch.setitem(KINDS, "layout-swift", on_swift)
    return "layout-swift"


@pytest.fixture
def place(kind: str, tmp_path: Path) -> Iterator[Place]:
    with KINDS[kind](CONTENT, tmp_path) as found:
        yield found
