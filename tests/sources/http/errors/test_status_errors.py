"""Which error an unwelcome answer becomes, and what its message says."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import AccessDeniedError, NotFoundError, PermanentError, TransientError
from zchunked.sources.http.errors.status_errors import excerpt_of, retry_after, status_error

NOW = 1_700_000_000.0
XML = (
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>'
    b"<Message>Request has expired</Message>\n"
    b"<SignatureProvided>hush</SignatureProvided></Error>"
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, PermanentError),
        (401, AccessDeniedError),
        (403, AccessDeniedError),
        (404, NotFoundError),
        (408, TransientError),
        (410, NotFoundError),
        (418, PermanentError),
        (425, TransientError),
        (429, TransientError),
        (500, TransientError),
        (501, PermanentError),
        (502, TransientError),
        (503, TransientError),
        (504, TransientError),
        (599, TransientError),
        (304, PermanentError),
    ],
)
def test_each_status_has_its_class(status: int, kind: type[Exception]) -> None:
    assert type(status_error(status, {}, b"", "the thing", now=NOW)) is kind


def test_the_message_says_what_and_why() -> None:
    body = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
    error = status_error(404, {}, body, "h/r:tag", now=NOW)
    assert (
        str(error) == "h/r:tag: 404 Not Found, the server says 'MANIFEST_UNKNOWN: manifest unknown'"
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (b'{"error":"invalid_token","error_description":"too old"}', "'invalid_token: too old'"),
        (b'{"details":"incorrect username or password"}', "'incorrect username or password'"),
        (XML, "'AccessDenied: Request has expired'"),
        (b'{"errors": "odd"}', '\'{"errors": "odd"}\''),
        (b"\x1b[31mred\x00", "'\\x1b[31mred\\x00'"),
    ],
)
def test_the_gist_of_a_body(body: bytes, said: str) -> None:
    assert excerpt_of(body) == said


@given(st.binary(max_size=2000))
def test_any_body_is_quoted_short_and_printable(body: bytes) -> None:
    said = excerpt_of(body)
    assert len(said) < 2500
    assert said.isprintable()


def test_secrets_are_cut_out_of_what_the_server_echoes() -> None:
    said = excerpt_of(b"your token abc.def.ghi (abc) is bad", ["abc", "abc.def.ghi", ""])
    assert said == "'your token … (…) is bad'"


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, b"", 7.0),
        ({"Retry-After": "1.5"}, b"", 1.5),
        ({"Retry-After": formatdate(NOW + 9, usegmt=True)}, b"", 9.0),
        ({"Retry-After": formatdate(NOW - 9, usegmt=True)}, b"", 0.0),
        ({"Retry-After": "soon"}, b"", None),
        ({"Retry-After": "soon"}, b"retry-after: 2s", 2.0),
        ({"Retry-After": "-3"}, b"", None),
        ({}, "retry-after: 880µs, allowed: 44000/minute".encode(), 880e-6),
        ({}, b"Retry-After: 20ms", 0.02),
        ({}, b"retry-after: 5us", 5e-6),
        ({}, b"retry-after: 900ns", 9e-7),
        ({}, b"retry-after: 1m30.5s", 90.5),
        ({}, b"retry-after: 3", 3.0),
        ({}, b'{"retry-after": "4s"}', 4.0),
        ({}, b"try again some day", None),
    ],
)
def test_the_wish_to_wait(headers: dict[str, str], body: bytes, seconds: float | None) -> None:
    assert retry_after(headers, body, NOW) == pytest.approx(seconds)


@given(st.text(max_size=60), st.binary(max_size=100))
def test_a_wish_is_never_negative_and_never_raises(header: str, body: bytes) -> None:
    wish = retry_after({"Retry-After": header}, body, NOW)
    assert wish is None or wish >= 0
