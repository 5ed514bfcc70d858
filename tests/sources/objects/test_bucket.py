"""Buckets when they misbehave: one try, every byte counted, our own errors, no secret in them."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.build.images import Layout
from tests.helpers.servers.bucket import NAME, Bucket
from tests.helpers.servers.faults import Fault, cut, fail, ignore_range, on, refuse, reset, stall
from tests.helpers.servers.registry import Registry
from zchunked.errors import (
    AccessDeniedError,
    IntegrityError,
    LimitError,
    NotFoundError,
    RangeIgnoredError,
    TransientError,
    UsageError,
    ZPullError,
)
from zchunked.oci.digest import digest_of
from zchunked.oci.documents import Descriptor
from zchunked.oci.reference import LayoutReference, parse_image
from zchunked.ranges import ByteRange
from zchunked.sources.layout import blob_path
from zchunked.sources.network import Network
from zchunked.sources.objects.bucket_errors import understood
from zchunked.sources.objects.bucket_objects import BucketObjects, open_bucket
from zchunked.sources.objects.bucket_target import open_bucket_target
from zchunked.sources.traffic import Traffic

DATA = random.Random(7).randbytes(300_000)
BLOB = Descriptor("", digest_of(DATA), len(DATA))
PATH = blob_path(BLOB.digest)
WHOLE = ByteRange(0, len(DATA))
SECRET = "wJalrXUtnFEMI-of-the-harbour"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDHARBOUR",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
}


def layout(text: str) -> LayoutReference:
    found = parse_image(text)
    assert isinstance(found, LayoutReference)
    return found


def network(environment: Mapping[str, str]) -> Network:
    return Network(Traffic(time.monotonic), environment)


def opened(
    environment: Mapping[str, str], text: str = "s3://layout", **how: object
) -> tuple[BucketObjects, Traffic]:
    traffic = Traffic(time.monotonic)
    return open_bucket(
        layout(text),
        Network(traffic, environment, stall_seconds=0.5, **how),  # type: ignore[arg-type]
    ), traffic


def read(objects: BucketObjects, span: ByteRange) -> tuple[bytes, ZPullError | None]:
    """What came, in order, and how it ended."""
    came = b""
    try:
        for at, piece in chain.from_iterable(objects.read(PATH, BLOB, [span])):
            assert at == span.start + len(came)
            came += piece
    except ZPullError as error:
        return came, error
    return came, None


def with_fault(fault: Fault, span: ByteRange) -> tuple[bytes, ZPullError | None]:
    """A read of the blob through one fault; the counts agree with the server's."""
    with Registry(Layout(blobs={BLOB.digest: DATA}), faults=[on("blob", fault)]) as server:
        objects, traffic = opened(KEYS | {"AWS_ENDPOINT_URL": server.url})
        came, error = read(objects, span)
        assert traffic.requests == server.accounts.count()
        if came == DATA[span.start : span.start + len(came)] and not isinstance(
            error, RangeIgnoredError
        ):
            assert traffic.fetched <= server.accounts.body_bytes
    if error is not None:
        assert SECRET not in str(error)
        assert "Debug" not in str(error)
        assert error.__cause__ is None, "obstore's own texts stay out of a traceback, too"
    return came, error


@pytest.mark.parametrize("span", [WHOLE, ByteRange(10, 200_010)], ids=["whole", "range"])
def test_what_came_before_a_break_is_kept(span: ByteRange) -> None:
    came, error = with_fault(cut(after=123_456), span)
    assert isinstance(error, TransientError)
    assert came == DATA[span.start : span.start + 123_456]


@pytest.mark.parametrize(
    "fault",
    [reset(after=1000), stall(2.0, after=1000), refuse(), refuse(how="rst")],
    ids=["reset", "stall", "fin", "rst"],
)
def test_a_broken_connection_is_worth_another_try(fault: Fault) -> None:
    came, error = with_fault(fault, ByteRange(100, 100_000))
    assert isinstance(error, TransientError)
    assert came == DATA[100 : 100 + len(came)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_worth_another_try_but_not_by_obstore(status: int) -> None:
    body = b'<Error><Code>SlowDown</Code><Message>Reduce your "rate".\n</Message></Error>'
    with Registry(
        Layout(blobs={BLOB.digest: DATA}), faults=[on("blob", fail(status, body=body))]
    ) as server:
        objects, traffic = opened(KEYS | {"AWS_ENDPOINT_URL": server.url})
        _, error = read(objects, WHOLE)
        assert isinstance(error, TransientError)
        assert "SlowDown" in str(error)
        assert (
            (traffic.requests, traffic.fetched) == (1, len(body)) == (1, server.accounts.body_bytes)
        )


@pytest.mark.parametrize(
    ("status", "kind"), [(403, AccessDeniedError), (401, AccessDeniedError), (404, NotFoundError)]
)
def test_a_refusal_is_final(status: int, kind: type[ZPullError]) -> None:
    _, error = with_fault(
        fail(status, body=f"<Code>No</Code><StringToSign>{SECRET}</StringToSign>".encode()), WHOLE
    )
    assert type(error) is kind
    if kind is AccessDeniedError:
        assert "AWS_ACCESS_KEY_ID" in str(error), "it says what to set"


def test_a_range_that_is_ignored_is_said_to_be() -> None:
    _, error = with_fault(ignore_range(), ByteRange(5, 10))
    assert isinstance(error, RangeIgnoredError)


def test_nobody_there_is_worth_another_try_and_no_request() -> None:
    objects, traffic = opened(KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    _, error = read(objects, WHOLE)
    assert isinstance(error, TransientError)
    assert "127.0.0.1:9 cannot be reached" in str(error)
    assert traffic.requests == 0


def test_an_object_that_is_longer_than_it_may_be_is_not_read() -> None:
    with Bucket(objects={"index.json": b"x" * 5000}) as bucket:
        objects, traffic = opened(bucket.environment, f"s3://{NAME}")
        with pytest.raises(LimitError, match="5000 bytes, the limit is 4999"):
            objects.get("index.json", 4999)
        assert traffic.fetched == 0
        assert objects.get("index.json", 5000) == b"x" * 5000


def test_a_blob_of_another_size_is_no_blob_of_ours() -> None:
    with Bucket(objects={f"a/b/{PATH}": DATA[:-1]}) as bucket:
        _, error = read(opened(bucket.environment, f"s3://{NAME}/a/b")[0], ByteRange(5, 10))
    assert isinstance(error, IntegrityError)
    assert "299999 bytes there, its descriptor promises 300000" in str(error)


# ── settings ──


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"pip install 'zpull\[s3\]'"):
        opened(KEYS)


def test_a_bucket_behind_plain_http_must_be_on_this_machine_or_allowed() -> None:
    far = KEYS | {
        "AWS_ENDPOINT_URL_S3": "http://storage.example:9000",
        "AWS_ENDPOINT_URL": "https://other.example",
    }
    with pytest.raises(UsageError, match=r"unencrypted from storage\.example:9000"):
        opened(far)
    opened(far, plain_http=True)
    opened(far | {"AWS_ALLOW_HTTP": "true"})


def test_settings_that_make_no_sense_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID"):
        opened({"AWS_SECRET_ACCESS_KEY": SECRET})
    with pytest.raises(UsageError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        opened({}, "az://container/prefix")


def test_google_and_azure_are_buckets_too() -> None:
    with Bucket(objects={"a/index.json": b"{}"}) as bucket:
        url = bucket.environment["AWS_ENDPOINT_URL"]
        google = {"GOOGLE_BASE_URL": url, "GOOGLE_SKIP_SIGNATURE": "true"}
        assert opened(google, f"gs://{NAME}/a")[0].get("index.json", 10) == b"{}"
        azure = {
            "AZURE_STORAGE_ENDPOINT": url,
            "AZURE_STORAGE_ACCOUNT_NAME": "x",
            "AZURE_SKIP_SIGNATURE": "true",
        }
        assert opened(azure, f"az://{NAME}/a")[0].get("index.json", 10) == b"{}"


def test_a_certificate_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZPullError, match=r"certificates of .*absent\.pem"):
        opened(KEYS | {"AWS_CA_BUNDLE": str(tmp_path / "absent.pem")})


# ── what obstore says ──


@given(
    st.text(max_size=300),
    st.sampled_from(["", "non-2xx status code: ", "kind: ", "\n\nDebug source:\n"]),
    st.text(),
)
def test_whatever_it_says_becomes_one_of_our_errors(head: str, middle: str, tail: str) -> None:
    answered = understood(
        OSError(head + middle + tail), "s3://tides", secrets=[SECRET], hint="set it"
    )
    assert isinstance(answered.error, ZPullError)
    assert str(answered.error).startswith("s3://tides")


def test_a_signed_url_never_gets_into_a_message() -> None:
    text = (
        f"Generic error at https://acc.example/c/x?sig={SECRET} failed oddly\n\nDebug "
        "source:\nnothing"
    )
    assert "failed oddly" in str(understood(RuntimeError(text), "az://c").error)
    assert SECRET not in str(understood(RuntimeError(text), "az://c").error)


# ── writing ──


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with Bucket() as found:
        yield found


def test_an_update_that_somebody_else_overtakes_is_made_again(bucket: Bucket) -> None:
    bucket.objects["index.json"] = b"first"
    target = open_bucket_target(layout(f"s3://{NAME}"), network(bucket.environment))
    seen = []

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        if len(seen) == 1:
            bucket.objects["index.json"] = b"theirs"
        return (old or b"") + b"+ours"

    target.update("index.json", change)
    assert seen == [b"first", b"theirs"]
    assert bucket.objects["index.json"] == b"theirs+ours"
    assert bucket.types["index.json"] == "no-cache"


def test_the_first_update_does_not_overwrite_the_first_of_another(bucket: Bucket) -> None:
    target = open_bucket_target(layout(f"s3://{NAME}"), network(bucket.environment))

    def change(old: bytes | None) -> bytes:
        if old is None:
            bucket.objects["index.json"] = b"theirs"
        return (old or b"") + b"+ours"

    target.update("index.json", change)
    assert bucket.objects["index.json"] == b"theirs+ours"


def test_without_conditions_an_update_looks_whether_it_is_still_there(bucket: Bucket) -> None:
    bucket.has_conditions = False
    target = open_bucket_target(layout(f"s3://{NAME}"), network(bucket.environment))
    seen = []

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        if len(seen) == 2:  # somebody who read before we wrote has written after us
            bucket.objects["index.json"] = old = b"theirs"
        return old if old is not None and b"ours" in old else (old or b"") + b"+ours"

    target.update("index.json", change)
    assert bucket.objects["index.json"] == b"theirs+ours"


def test_a_publisher_who_may_not_list_is_told_of_absence_by_a_refusal(bucket: Bucket) -> None:
    bucket.before = lambda method, key: (
        403 if method in ("GET", "HEAD") and key not in bucket.objects else None
    )
    target = open_bucket_target(layout(f"s3://{NAME}"), network(bucket.environment))
    assert target.size_of(PATH) is None
    target.update("index.json", lambda old: old or b"ours")
    assert bucket.objects == {"index.json": b"ours"}


@pytest.mark.parametrize("has_conditions", [True, False])
def test_an_index_that_may_not_be_read_is_never_overwritten(
    bucket: Bucket, has_conditions: bool
) -> None:
    bucket.objects["index.json"], bucket.has_conditions = b"theirs", has_conditions
    bucket.before = lambda method, _: 403 if method == "GET" else None
    target = open_bucket_target(layout(f"s3://{NAME}"), network(bucket.environment))
    with pytest.raises(AccessDeniedError):
        target.update("index.json", lambda old: (old or b"") + b"ours")
    assert bucket.objects["index.json"] == b"theirs"


def test_a_large_object_goes_up_in_parts_and_leaves_none_behind(bucket: Bucket) -> None:
    target = open_bucket_target(layout(f"s3://{NAME}"), network(bucket.environment))
    data = random.Random(1).randbytes(1 << 20)

    def pieces(broken: bool) -> Iterator[bytes]:
        for number in range(13):
            if broken and number == 12:
                raise LookupError("the disk is gone")
            yield data

    with pytest.raises(LookupError, match="the disk is gone"):
        target.put(PATH, 13 << 20, pieces(broken=True))
    assert (bucket.objects, bucket.uploads) == ({}, {})
    target.put(PATH, 13 << 20, pieces(broken=False))
    assert (bucket.objects, bucket.uploads) == ({PATH: data * 13}, {})
    assert target.size_of(PATH) == 13 << 20
    assert target.size_of("absent") is None
