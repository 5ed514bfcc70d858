"""Redirects that aim at this machine or at its cloud's metadata service are refused."""

from __future__ import annotations

import pytest

from zchunked.errors import PermanentError
from zchunked.sources.http.locations.redirect_guard import refuse_inward

NAMES = {
    "cdn.example": ["203.0.113.7"],
    "minio.lan": ["10.1.2.3"],
    "evil.example": ["169.254.169.254"],
    "mixed.example": ["203.0.113.7", "::1"],
    "registry.example": ["203.0.113.9"],
    "here.example": ["127.0.0.1"],
}


def resolve(host: str) -> list[str]:
    return NAMES.get(host, [])


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:2375/containers/json",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[fe80::1]/x",
        "http://0.0.0.0:80/",
        "http://100.100.100.200/",
        "https://evil.example/x",
        "https://mixed.example/x",
    ],
)
def test_a_redirect_inward_is_refused(target: str) -> None:
    with pytest.raises(PermanentError, match="refused"):
        refuse_inward("https://registry.example/v2/a/blobs/b", target, resolve)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://registry.example/a", "https://cdn.example/b"),
        ("https://registry.example/a", "https://minio.lan/b"),
        ("https://registry.example/a", "https://unknown.example/b"),
        ("http://127.0.0.1:5000/a", "http://localhost:5001/b"),
        ("http://here.example/a", "http://127.0.0.1:9000/b"),
    ],
)
def test_storage_elsewhere_is_fine(url: str, target: str) -> None:
    NAMES["localhost"] = ["127.0.0.1", "::1"]
    refuse_inward(url, target, resolve)
