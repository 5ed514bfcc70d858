"""Is the answer what was asked? Heads of answers against spans."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import (
    IntegrityError,
    MultiRangeRefusedError,
    PermanentError,
    RangeIgnoredError,
    TransferError,
    TransientError,
)
from zchunked.limits import Limits
from zchunked.oci.digest import digest_of
from zchunked.oci.documents import Descriptor
from zchunked.ranges import ByteRange
from zchunked.sources.http.ranges.range_response import (
    EncodedError,
    Packed,
    Parts,
    clip,
    understand,
)

BLOB = Descriptor("x", digest_of(b""), 100)
ONE = [ByteRange(10, 20)]
TWO = [ByteRange(10, 20), ByteRange(40, 50)]
WHOLE = [ByteRange(0, 100)]


def _206(content_range: str) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", "Content-Range": content_range}


def test_what_was_asked_is_understood() -> None:
    assert understand(206, _206("bytes 10-19/100"), BLOB, ONE) == ONE[0]
    assert understand(206, _206("bytes 10-19/*"), BLOB, ONE) == ONE[0]
    assert understand(200, {}, BLOB, WHOLE) == WHOLE[0]
    assert understand(206, _206("bytes 0-99/100"), BLOB, WHOLE) == WHOLE[0]


def test_the_beginning_of_a_range_is_a_beginning() -> None:
    assert understand(206, _206("bytes 10-14/100"), BLOB, ONE) == ByteRange(10, 15)


def test_200_with_exactly_the_asked_range_is_a_range_after_all() -> None:
    head = {"Content-Range": "bytes 10-19/100", "Content-Length": "10"}
    assert understand(200, head, BLOB, ONE) == ONE[0]
    with pytest.raises(RangeIgnoredError):
        understand(200, head | {"Content-Length": "100"}, BLOB, ONE)
    with pytest.raises(RangeIgnoredError):
        understand(200, {"Content-Range": "bytes 10-19/100"}, BLOB, ONE)


def test_a_200_holds_the_whole_blob_whatever_was_asked() -> None:
    assert understand(200, {}, BLOB, ONE) == ByteRange(0, BLOB.size)
    assert understand(200, {"Content-Length": str(BLOB.size)}, BLOB, ONE) == ByteRange(0, BLOB.size)
    with pytest.raises(RangeIgnoredError):
        understand(200, {"Content-Length": str(BLOB.size - 1)}, BLOB, ONE)


@pytest.mark.parametrize("status", [400, 416, 501])
def test_a_host_without_ranges(status: int) -> None:
    with pytest.raises(RangeIgnoredError):
        understand(status, {}, BLOB, ONE)


def test_a_blob_that_is_shorter_than_promised() -> None:
    with pytest.raises(IntegrityError, match="has 15 bytes of it"):
        understand(416, {"Content-Range": "bytes */15"}, BLOB, ONE)


@pytest.mark.parametrize("status", [200, 400, 413, 414, 416, 431, 501, 502])
def test_a_host_without_multi_range(status: int) -> None:
    with pytest.raises(MultiRangeRefusedError):
        understand(status, {}, BLOB, TWO)


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_what_is_not_about_ranges(status: int) -> None:
    assert understand(status, {}, BLOB, ONE) is None
    assert understand(status, {}, BLOB, WHOLE) is None
    assert understand(416, {}, BLOB, WHOLE) is None


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "bytes 11-20/100",
        "bytes 10-20/100",
        "bytes 9-19/100",
        "bytes 10-19/101",
        "bytes 10-19",
        "bytes 19-10/100",
        "chars 10-19/100",
        "bytes 10-19/100, bytes 10-19/100",
        "bytes 10-19/5",
    ],
)
def test_a_206_for_other_bytes_is_refused(content_range: str) -> None:
    with pytest.raises(TransientError) as caught:
        understand(206, _206(content_range), BLOB, ONE)
    # a host that does so always has no ranges
    assert caught.value.most_tries == 3
    is_of_another_size = content_range == "bytes 10-19/101"
    assert isinstance(
        caught.value.if_lasting, IntegrityError if is_of_another_size else RangeIgnoredError
    )


def test_a_206_of_a_blob_of_another_size_is_worth_few_tries() -> None:
    for spans in (ONE, TWO, WHOLE):
        with pytest.raises(TransientError) as caught:
            understand(206, _206("bytes 10-19/101"), BLOB, spans)
        assert caught.value.most_tries == 3
        assert isinstance(caught.value.if_lasting, IntegrityError)
        assert "has 101 bytes of it, its descriptor promises 100" in str(caught.value.if_lasting)


def test_several_ranges_may_come_as_one() -> None:
    assert understand(206, _206("bytes 10-49/100"), BLOB, TWO) == ByteRange(10, 50)
    assert understand(206, _206("bytes 10-19/100"), BLOB, TWO) == ByteRange(10, 20)
    for other in ("bytes 20-39/100", "bytes 5-49/100", "bytes 10-50/100"):
        with pytest.raises(MultiRangeRefusedError):
            understand(206, _206(other), BLOB, TWO)


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"Content-Type": "multipart/x-byteranges; boundary=B"},
        {"Content-Type": "multipart/mixed; boundary=B"},
        {"Content-Range": "bytes 10-19/100, bytes 30-39/100"},
        {"Content-Range": "bytes 10-19,30-39/100"},
    ],
)
def test_what_several_ranges_cannot_be_read_from_is_a_refusal(head: dict[str, str]) -> None:
    with pytest.raises(MultiRangeRefusedError):
        understand(206, head, BLOB, TWO)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/byteranges; boundary=THIS", b"THIS"),
        ('Multipart/ByteRanges;Boundary="with: odd/chars?"', b"with: odd/chars?"),
        ("multipart/byteranges; charset=x; boundary=CloudFront:0123:abc", b"CloudFront:0123:abc"),
        ('multipart/byteranges; boundary="quo\\"ted"', b'quo"ted'),
        ("multipart/byteranges; boundary=" + "b" * 70, b"b" * 70),
    ],
)
def test_boundaries(content_type: str, boundary: bytes) -> None:
    assert understand(206, {"Content-Type": content_type}, BLOB, TWO) == Parts(boundary)


@pytest.mark.parametrize(
    "content_type",
    ["multipart/byteranges", 'multipart/byteranges; boundary=""',
     "multipart/byteranges; boundary=" + "b" * 71, 'multipart/byteranges; boundary="a\x01b"',
     "multipart/byteranges; bound=x"],
)  # fmt: skip
def test_multipart_without_a_usable_boundary(content_type: str) -> None:
    with pytest.raises(MultiRangeRefusedError):
        understand(206, {"Content-Type": content_type}, BLOB, TWO)
    with pytest.raises(TransientError):
        understand(206, {"Content-Type": content_type}, BLOB, ONE)


@pytest.mark.parametrize(
    "label", ["gzip", "x-gzip", "aws-chunked", "none", "identity", "", "br, gzip"]
)
def test_a_content_encoding_that_is_only_a_label_is_passed_over(label: str) -> None:
    head = _206("bytes 10-19/100") | {"Content-Encoding": label, "Content-Length": "10"}
    assert understand(206, head, BLOB, ONE) == ByteRange(10, 20)
    assert understand(
        206, _206("bytes 10-19/100") | {"Content-Encoding": label}, BLOB, ONE
    ) == ByteRange(10, 20)


@pytest.mark.parametrize(
    "head", [{"Content-Range": "bytes 10-19/100", "Content-Length": "30"}, _206("bytes 10-19/60")]
)
def test_packed_ranges_are_refused_for_good(head: dict[str, str]) -> None:
    with pytest.raises(EncodedError, match="gzip"):
        understand(206, head | {"Content-Encoding": "gzip"}, BLOB, ONE)
    assert issubclass(EncodedError, PermanentError)


def test_a_whole_blob_may_be_packed_if_it_is_small() -> None:
    head = {"Content-Encoding": "gzip", "Content-Length": "40"}
    assert understand(200, head, BLOB, WHOLE) == Packed()
    with pytest.raises(EncodedError):
        understand(200, head, BLOB, WHOLE, Limits(manifest_bytes=99))
    assert understand(200, head | {"Content-Length": "100"}, BLOB, WHOLE) == ByteRange(0, 100)


def test_a_range_of_a_small_blob_may_bring_all_of_it_packed() -> None:
    for length in ({}, {"Content-Length": "40"}):
        with pytest.raises(RangeIgnoredError, match="packed"):
            understand(200, {"Content-Encoding": "gzip", **length}, BLOB, ONE)
    only_label = {"Content-Encoding": "gzip", "Content-Length": "100"}
    assert understand(200, only_label, BLOB, ONE) == ByteRange(0, 100)


@given(
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["Content-Range", "Content-Type", "Content-Length"]), st.text()
    ),
)
def test_any_head_is_understood_or_refused(status: int, head: dict[str, str]) -> None:
    for spans in (ONE, TWO, WHOLE):
        with suppress(TransferError):
            understand(status, head, BLOB, spans)


@given(st.sets(st.integers(0, 40), max_size=16), st.integers(0, 40), st.integers(1, 40))
def test_clip_keeps_what_was_asked_and_nothing_else(edges: set[int], start: int, size: int) -> None:
    points = sorted(edges)
    spans = [ByteRange(a, b) for a, b in zip(points[::2], points[1::2], strict=False)]
    asked = {at for span in spans for at in range(span.start, span.end)}
    found = [
        at
        for span in clip(ByteRange(start, start + size), spans)
        for at in range(span.start, span.end)
    ]
    assert found == sorted(asked & set(range(start, start + size)))
