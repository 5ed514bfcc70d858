"""Digests: one form, and one place where bytes are held against it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import FormatError, IntegrityError
from zchunked.oci.digest import (
    EMPTY,
    Digest,
    digest_of,
    from_raw,
    parse_digest,
    parse_digests,
    raw,
    short,
    verified,
    verify,
)

HEX = "0123456789abcdef" * 4
GOOD = f"sha256:{HEX}"
BAD = [
    "", "sha256:", GOOD[:-1], GOOD + "0", GOOD.upper(), GOOD + "\n", "\n" + GOOD, f"sha512:{HEX}",
    f"sha256-{HEX}", HEX, "sha256:" + "../" * 21 + "x", "sha256:" + "g" * 64, "sha256:" + "٠" * 64,
    f"{GOOD}\n{GOOD}", "sha256:" + "\0" * 64, "\ud800",
]  # fmt: skip
TEXTS = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda data: "sha256:" + data.hex()),
    st.sampled_from(BAD),
    st.text(max_size=80),
)


@pytest.mark.parametrize("text", BAD)
def test_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_digest(text)
    with pytest.raises(FormatError):
        parse_digests([GOOD, text, GOOD], "digest")


@given(st.lists(TEXTS, max_size=6))
def test_many_at_once_are_judged_like_one_by_one(texts: list[str]) -> None:
    try:
        want = b"".join(raw(parse_digest(text)) for text in texts)
    except FormatError:
        with pytest.raises(FormatError):
            parse_digests(texts, "digest")
    else:
        assert parse_digests(texts, "digest") == want


@given(st.binary(max_size=300))
def test_raw_and_text_are_the_same_digest(data: bytes) -> None:
    digest = digest_of(data)
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert parse_digest(digest) == digest
    assert raw(digest) == hashlib.sha256(data).digest()
    assert from_raw(raw(digest)) == from_raw(memoryview(raw(digest))) == digest
    assert short(digest) in digest
    verify(data, digest, "it")


def test_nothing_has_a_digest_too() -> None:
    assert digest_of(b"") == EMPTY


def test_a_mismatch_says_what_where_wanted_and_got() -> None:
    with pytest.raises(
        IntegrityError, match=rf"the TOC: expected {GOOD}, got {digest_of(b'abc')} \(3 bytes\)"
    ):
        verify(b"abc", Digest(GOOD), "the TOC")


def cut(data: bytes, edges: list[int]) -> Iterator[bytes]:
    bounds = sorted({0, len(data), *(min(edge, len(data)) for edge in edges)})
    for start, end in itertools.pairwise(bounds):
        yield data[start:end]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_good_bytes_pass_however_they_are_cut(data: bytes, edges: list[int]) -> None:
    assert b"".join(verified(cut(data, edges), digest_of(data), len(data), "it")) == data


@given(st.binary(max_size=60), st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=3))
def test_other_bytes_never_pass_to_the_end(data: bytes, other: bytes, edges: list[int]) -> None:
    passed = b""
    try:
        for piece in verified(cut(other, edges), digest_of(data), len(data), "it"):
            passed += piece
    except IntegrityError:
        assert len(passed) <= len(data), "excess was passed on"
        assert other != data
    else:
        assert passed == data


def test_excess_is_refused_before_an_endless_stream_ends() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1000)

    with pytest.raises(IntegrityError, match="longer than the 2500 bytes"):
        list(verified(endless(), Digest(GOOD), 2500, "it"))


def test_a_short_stream_is_refused_with_what_is_missing() -> None:
    with pytest.raises(IntegrityError, match="2 of 5 bytes are missing"):
        list(verified([b"abc"], digest_of(b"abcde"), 5, "it"))
