"""A layout behind a web server that has a mind of its own.

Redirects, passwords, packed answers, pages for files.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import chain

import pytest

from tests.helpers.build.front import OCI_MANIFEST, Layout
from tests.helpers.servers.loopback import LoopbackServer
from tests.helpers.servers.registry import Registry
from tests.helpers.servers.tickets import basic
from tests.sources.conftest import BLOB, DATA
from zchunked.errors import (
    AccessDeniedError,
    FormatError,
    NotFoundError,
    PermanentError,
    RangeIgnoredError,
    UsageError,
)
from zchunked.interfaces import Source
from zchunked.oci.digest import digest_of
from zchunked.oci.reference import parse_image
from zchunked.ranges import ByteRange
from zchunked.sources import open_source
from zchunked.sources.network import Network
from zchunked.sources.traffic import Traffic

MANIFEST = b'{"schemaVersion":2}'
LAYOUT = Layout(
    {"v1": digest_of(MANIFEST)},
    {digest_of(MANIFEST): (OCI_MANIFEST, MANIFEST)},
    {BLOB.digest: DATA},
)
WHOLE, SPAN = ByteRange(0, BLOB.size), ByteRange(1000, 2000)
FILES = {"/index.json": LAYOUT.index_json()} | {
    f"/blobs/{digest.replace(':', '/')}": data for digest, data in LAYOUT
}

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], Answer]) -> Iterator[str]:
    """A web server that answers like this; yields its host and port."""

    def serve(handler: BaseHTTPRequestHandler) -> None:
        status, headers, body = answer(handler)
        handler.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)

    server = LoopbackServer(lambda: None, serve, 0)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.stop()


def opened(text: str, **options: object) -> Source:
    network = Network(Traffic(time.monotonic), **{"stall_seconds": 2.0, **options})  # type: ignore[arg-type]
    return open_source(parse_image(text), network)


def read(source: Source, span: ByteRange) -> bytes:
    return b"".join([piece for _, piece in chain.from_iterable(source.read(BLOB, [span]))])


def test_a_redirect_to_another_host_is_followed_without_the_password() -> None:
    with Registry(LAYOUT) as there:

        def answer(handler: BaseHTTPRequestHandler) -> Answer:
            if handler.headers.get("Authorization") != basic(("me", "s3cr3t")):
                return 401, {"WWW-Authenticate": 'Basic realm="files"'}, b"who are you?"
            elsewhere = there.layout_url.replace("127.0.0.1", "localhost")
            return 302, {"Location": elsewhere + handler.path.removeprefix("/base")}, b""

        with (
            serving(answer) as host,
            closing(opened(f"oci+http://{host}/base:v1", credentials=("me", "s3cr3t"))) as source,
        ):
            assert source.manifest(None).data == MANIFEST
            assert read(source, SPAN) == DATA[1000:2000]
            assert read(source, WHOLE) == DATA
        requests = there.accounts.requests
        assert len(requests) == 4
        assert not any(request.authorized for request in requests)


def test_a_wrong_password_is_denied_and_not_repeated() -> None:
    def answer(_: BaseHTTPRequestHandler) -> Answer:
        return 401, {"WWW-Authenticate": 'Basic realm="files"'}, b"no: s3cr3t"

    with (
        serving(answer) as host,
        closing(opened(f"oci+http://{host}/base:v1", credentials=("me", "s3cr3t"))) as source,
        pytest.raises(AccessDeniedError) as caught,
    ):
        source.manifest(None)
    assert "s3cr3t" not in str(caught.value)


def test_packed_documents_are_unpacked_and_packed_ranges_refused_at_once() -> None:
    """Offsets in a packed blob mean nothing."""

    def answer(handler: BaseHTTPRequestHandler) -> Answer:
        return 200, {"Content-Encoding": "gzip"}, gzip.compress(FILES[handler.path])

    with serving(answer) as host, closing(opened(f"oci+http://{host}:v1")) as source:
        assert source.manifest(None).data
        with pytest.raises(RangeIgnoredError):
            read(source, SPAN)
        assert read(source, WHOLE) == DATA

    def of_ranges(handler: BaseHTTPRequestHandler) -> Answer:
        head = {
            "Content-Encoding": "gzip",
            "Content-Range": f"bytes {SPAN.start}-{SPAN.end - 1}/{len(DATA)}",
        }
        return 206, head, gzip.compress(DATA[SPAN.start : SPAN.end])

    with (
        serving(of_ranges) as host,
        closing(opened(f"oci+http://{host}:v1")) as source,
        pytest.raises(PermanentError, match=r"Content-Encoding 'gzip'.*switch that off"),
    ):
        read(source, SPAN)


def test_a_page_for_every_path_is_no_layout() -> None:
    with (
        serving(
            lambda _: (200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><p>Welcome")
        ) as host,
        closing(opened(f"oci+http://{host}/app:v1")) as source,
        pytest.raises(
            PermanentError,
            match=r"/app/index\.json: a web page \(HTML\) came in its place, '<!DOCTYPE",
        ),
    ):
        source.manifest(None)


def test_a_missing_layout_says_what_was_looked_for_and_quotes_no_page() -> None:
    with (
        serving(lambda _: (404, {}, b"<!DOCTYPE html><p>Nothing here")) as host,
        closing(opened(f"oci+http://{host}/a/b:v1")) as source,
        pytest.raises(NotFoundError, match=r"/a/b/index\.json: there is no such file") as caught,
    ):
        source.manifest(None)
    assert "DOCTYPE" not in str(caught.value)


def test_a_base_with_spaces_and_signs_is_asked_for_as_a_path() -> None:
    asked = []

    def answer(handler: BaseHTTPRequestHandler) -> Answer:
        asked.append(handler.path)
        return 404, {}, b""

    for base in ("my images/ä", "a%20b"):
        with (
            serving(answer) as host,
            closing(opened(f"oci+http://{host}/{base}:v1")) as source,
            pytest.raises(NotFoundError),
        ):
            source.manifest(None)
    assert asked == ["/my%20images/%C3%A4/index.json", "/a%20b/index.json"]


def test_plain_http_over_a_network_must_be_allowed() -> None:
    with pytest.raises(UsageError, match=r"oci\+https://, or allow it with --plain-http"):
        opened("oci+http://host.example/base:v1")
    opened("oci+http://host.example/base:v1", plain_http=True).close()
    opened("oci+http://localhost:1/base:v1").close()


def test_an_index_above_the_limit_is_not_read_to_its_end() -> None:
    with (
        serving(lambda _: (200, {}, b" " * (5 << 20))) as host,
        closing(opened(f"oci+http://{host}:v1")) as source,
        pytest.raises(FormatError, match="limit is"),
    ):
        source.manifest(None)
