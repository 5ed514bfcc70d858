"""Text of peers and people: repeated as one printable line, without passwords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import TransientError, UsageError, ZPullError
from zchunked.events import Noted, Warned
from zchunked.export.destination import parse_destination, parse_target
from zchunked.oci.platform import Platform
from zchunked.oci.quoting import printable, safe_line, typed
from zchunked.oci.reference import parse_image

DIGEST = "sha256:" + "0a" * 32


@given(st.text())
def test_whatever_a_peer_says_becomes_one_printable_line(text: str) -> None:
    for said in (
        str(ZPullError(text)),
        str(TransientError(text)),
        Noted(text).text,
        Warned(text).text,
        str(Platform(text, text)),
    ):
        assert said.isprintable()
    assert safe_line(safe_line(text)) == safe_line(text)


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "a\nzpull: done", "a\r", "\x9b1A", "a\u202eb", "\u2028", "\x07"]
)
def test_what_moves_a_cursor_or_forges_a_line_is_escaped(text: str) -> None:
    assert printable(text).isascii()
    assert printable(text) != text


def test_letters_of_all_languages_stay() -> None:
    assert safe_line("Grüße, 日本, µs: …") == "Grüße, 日本, µs: …"


SECRETS = [
    "user:hush@host/repo:tag",
    "user:hush@host:5000/repo",
    "docker://user:hush@host/repo",
    "https://user:hush@host/repo",
    "https://hush@host/repo",
    "https://user:hu@hush@host/repo",
    "https://user:hush/hush@host/repo",
    "https://user:hush hush@host/repo",
    "user:hush hush@host/repo",
    "oci+https://user:hush@host/base:tag",
    "oci+http://user:hush/hush@host/base",
    "oci+https://host/base?X-Amz-Signature=hush",
    "s3://key:hush@bucket/prefix",
    "oci:https://user:hush@host/base",
    "ftp://user:hush@host/repo",
    "user:" + "hush" * 100 + "@host/repo",
    f"user:hush@host/repo@{DIGEST}",
    f"https://user:hush@host/repo@{DIGEST}",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_password_in_a_reference_or_target_is_not_repeated(text: str) -> None:
    for parse in (parse_image, parse_destination, parse_target):
        with pytest.raises(UsageError) as caught:
            parse(text)
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("text", [one for one in SECRETS if " " not in one and "?" not in one])
def test_a_password_in_any_message_is_not_repeated(text: str) -> None:
    for said in (f"unrecognized arguments: {text} --x", f"cannot read {text!r}", f"{text}: no"):
        assert "hush" not in str(UsageError(said))


@pytest.mark.parametrize(
    "text",
    [
        f"host/repo:tag@{DIGEST}: want {DIGEST}",
        f"https://host:443/v2/repo/blobs/{DIGEST}: 404",
        f"oci+https://host/base:tag@{DIGEST}",
        "localhost:5000/repo@latest",
        "mail to me@example.org",
    ],
)
def test_what_is_no_password_stays(text: str) -> None:
    assert safe_line(text) == text
    assert typed(text) == repr(text)
