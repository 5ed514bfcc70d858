"""Destinations: `transport:path[:tag]`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zchunked.errors import UsageError
from zchunked.export.destination import parse_destination


@pytest.mark.parametrize(("text", "transport", "path", "tag"), [
    ("oci:dir", "oci", "dir", None),
    ("oci:dir:v1", "oci", "dir", "v1"),
    ("oci:/a/b:v1", "oci", "/a/b", "v1"),
    ("oci:/a:b/c", "oci", "/a", "b/c"),
    ("oci:dir:host:5000/app:v1", "oci", "dir", "host:5000/app:v1"),
    ("oci-archive:app.tar:host/app:v1", "oci-archive", "app.tar", "host/app:v1"),
    ("oci-archive:app.tar:name", "oci-archive", "app.tar", "name"),
    ("oci:dir:", "oci", "dir", None),
    ("oci-archive:app.tar", "oci-archive", "app.tar", None),
    ("oci-archive:app.tar:v1", "oci-archive", "app.tar", "v1"),
    ("oci-archive:-", "oci-archive", "-", None),
    ("docker-archive:app.tar", "docker-archive", "app.tar", None),
    ("docker-archive:app.tar:host:5000/app:v1", "docker-archive", "app.tar", "host:5000/app:v1"),
    ("docker-archive:-:app:v1", "docker-archive", "-", "app:v1"),
])  # fmt: skip
def test_a_destination_is_understood(text: str, transport: str, path: str, tag: str | None) -> None:
    found = parse_destination(text)
    assert (found.transport, found.path, found.tag, found.text) == (
        transport,
        Path(path),
        tag,
        text,
    )
    assert found.is_stdout == (path == "-")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oci",
        "oci:",
        "oci::v1",
        ":dir",
        "dir",
        "/tmp/dir",
        "docker-archive:",
        "oci-archive",
        "OCI:dir",
        "zip:x",
        "oci:-",
    ],
)
def test_what_is_no_destination_says_what_would_be(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"^--to .*(expected (one of )?oci:|no path after|oci-archive:-)"
    ):
        parse_destination(text)


@given(
    st.text()
    | st.builds(
        "{}:{}".format, st.sampled_from(["oci", "oci-archive", "docker-archive"]), st.text("ab:/.-")
    )
)
def test_whatever_the_text_a_destination_or_a_usage_error(text: str) -> None:
    try:
        found = parse_destination(text)
    except UsageError:
        return
    assert str(found.path)
    assert found.text == text
