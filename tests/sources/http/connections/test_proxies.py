"""Proxies from the environment: who goes through one, and who does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import UsageError
from zchunked.sources.http.connections.proxies import is_exempt, proxy_for


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "wanted"),
    [
        ("*", "far.example", 443, True),
        ("", "far.example", 443, False),
        ("far.example", "far.example", 443, True),
        ("far.example", "a.far.example", 443, True),
        ("far.example", "toofar.example", 443, False),
        (".far.example", "a.far.example", 443, True),
        (".far.example", "far.example", 443, True),
        ("*.far.example", "a.b.far.example", 443, True),
        ("*.far.example", "far.example", 443, False),
        ("FAR.example.", "far.EXAMPLE", 443, True),
        ("near.example, far.example", "far.example", 443, True),
        ("near.example far.example", "far.example", 443, True),
        ("far.example:443", "far.example", 443, True),
        ("far.example:443", "far.example", 5000, False),
        ("10.0.0.1:5000", "10.0.0.1", 5000, True),
        ("10.0.0.1:5000", "10.0.0.1", 5001, False),
        ("10.0.0.1", "10.0.0.1", 5001, True),
        ("10.0.0.0/8", "10.9.9.9", 443, True),
        ("10.0.0.0/8", "11.9.9.9", 443, False),
        ("10.0.0.0/8", "ten.example", 443, False),
        ("fd00::/8", "fd12::1", 443, True),
        ("fd00::/8", "fe80::1", 443, False),
        ("fd00::/8", "10.0.0.1", 443, False),
        ("::1:2", "::1:2", 443, True),
        ("[fd00::1]", "fd00::1", 443, True),
        ("[fd00::1]:5000", "fd00::1", 5000, True),
        ("[fd00::1]:5000", "fd00::1", 443, False),
        ("fd00:0:0::1", "fd00::1", 443, True),
        ("1.2.3", "1.2.3.4", 443, False),
        ("example:nonsense, [::, 10.0.0.0/99, , .", "far.example", 443, False),
    ],
)
def test_no_proxy(no_proxy: str, host: str, port: int, wanted: bool) -> None:
    assert is_exempt(host, port, no_proxy) is wanted


@given(st.text(alphabet="abc.*:/[]%0123456789, "), st.sampled_from(["a.b", "10.0.0.1", "::1"]))
def test_whatever_stands_there_is_read(no_proxy: str, host: str) -> None:
    is_exempt(host, 443, no_proxy)


@pytest.mark.parametrize(
    ("environment", "url", "wanted"),
    [
        ({}, "https://far.example/", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://far.example/", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://far.example/", None),
        (
            {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"},
            "https://far.example/",
            "http://p:1",
        ),
        ({"https_proxy": "", "HTTPS_PROXY": "http://q:1"}, "https://far.example/", "http://q:1"),
        ({"ALL_PROXY": "p:1"}, "https://far.example/", "http://p:1"),
        ({"HTTP_PROXY": "http://u:hush@p:1"}, "http://far.example/", "http://u:hush@p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "http://127.0.0.1:5000/", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://[::1]:5000/", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://localhost/", None),
        ({"HTTPS_PROXY": "p:1", "NO_PROXY": "far.example:443"}, "https://far.example/", None),
        ({"HTTPS_PROXY": "p:1", "no_proxy": "fd00::/8"}, "https://[fd00::1]/", None),
    ],
)
def test_proxies(environment: dict[str, str], url: str, wanted: str | None) -> None:
    assert proxy_for(url, environment) == wanted


@pytest.mark.parametrize(
    "value",
    [
        "socks5://u:hush@p:1",
        "http://u:hush@p:port",
        "ftp://u:hush@p",
        "http://",
        "http://[u:hush",
        "http://p:0",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(value: str) -> None:
    with pytest.raises(UsageError, match="HTTPS_PROXY") as caught:
        proxy_for("https://far.example/", {"HTTPS_PROXY": value})
    assert "hush" not in str(caught.value)
