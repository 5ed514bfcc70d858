"""What people may see of a URL, and where a redirect may lead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import TransferError
from zchunked.sources.http.locations.urls import (
    hidden_values,
    netloc,
    origin,
    redirect_target,
    shown,
)

SIGNED = "https://user:pw@cdn.example/blob?X-Amz-Signature=0123456789abcdef&digest=sha256:00&X-Amz-Expires=300"


def test_shown_keeps_the_short_list_and_hides_the_rest() -> None:
    assert (
        shown(SIGNED)
        == "https://cdn.example/blob?X-Amz-Signature=…&digest=sha256:00&X-Amz-Expires=…"
    )


@given(
    st.text(), st.text(min_size=8, alphabet=st.characters(exclude_characters="&=#…", codec="utf-8"))
)
def test_shown_never_raises_and_never_tells(path: str, secret: str) -> None:
    assert isinstance(shown(path), str)
    if secret not in "https://h/p?signature=…" and secret not in "%E2%80%A6":
        assert secret not in shown(f"https://h/p?signature={secret}")


def test_hidden_values_come_encoded_and_decoded() -> None:
    values = hidden_values("https://h/?sig=aaaa%2Fbbbb%3D&scope=repository:x:pull&short=1")
    assert values == ["aaaa/bbbb=", "aaaa%2Fbbbb%3D"]


def test_origins() -> None:
    assert origin("https://H.example/x") == ("https", "h.example", 443)
    assert origin("http://[::1]:5000/") == ("http", "::1", 5000)
    assert netloc("https://u:p@H:1/x") == "h:1"


@pytest.mark.parametrize(
    "url", ["ftp://h/", "file:///etc/passwd", "//h/x", "https://", "https://h:99999/", "https://[/"]
)
def test_what_has_no_origin_is_refused(url: str) -> None:
    with pytest.raises(TransferError):
        origin(url)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2/other", "https://r.example/v2/other"),
        ("?a=b", "https://r.example/v2/x?a=b"),
        ("//cdn.example/y", "https://cdn.example/y"),
        ("https://user:secret@cdn.example:8443/z#part", "https://cdn.example:8443/z"),
        (" https://cdn.example/z ", "https://cdn.example/z"),
        ("/a b\x1b[2J\x9b%20", "https://r.example/a%20b%1B[2J%9B%20"),
        ("/\xc3\xbc", "https://r.example/%C3%BC"),
    ],
)
def test_redirects_are_joined_and_cleaned(location: str, target: str) -> None:
    assert redirect_target("https://r.example/v2/x", location) == target


@pytest.mark.parametrize(
    "location", ["http://r.example/v2/x", "ftp://r.example/", "file:///etc/passwd", "https://["]
)
def test_redirects_away_from_tls_or_http_are_refused(location: str) -> None:
    with pytest.raises(TransferError):
        redirect_target("https://r.example/v2/x", location)


def test_plain_http_may_redirect_to_plain_http() -> None:
    assert (
        redirect_target("http://localhost:5000/v2/x", "http://127.0.0.1:6000/y")
        == "http://127.0.0.1:6000/y"
    )
