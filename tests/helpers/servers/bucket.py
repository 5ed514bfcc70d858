"""A bucket on loopback: as much of S3 as a publisher needs, in memory, with an open log."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

NAME = "tides"


@dataclass
class Bucket:
    """`has_conditions` False: answers 501 to conditional writes, as some servers do."""

    has_conditions: bool = True
    before: Callable[[str, str], int | None] = lambda _method, _key: None
    """Called with each request before it is answered; a status it returns is the answer."""
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """Multipart uploads neither completed nor aborted."""
    log: list[tuple[str, str]] = field(default_factory=list)
    """(method, key) of all requests; parts and the ends of uploads count as well."""
    types: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.bucket = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "AKIDTIDE",
            "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-tide",
            "AWS_REGION": "us-east-1",
        }

    def written(self) -> list[str]:
        """Keys in the order in which they were written, parts and all."""
        return [key for method, key in self.log if method == "PUT"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    bucket: Bucket

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        bucket, url = self.server.bucket, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = unquote(url.path).removeprefix(f"/{NAME}/")
        query = parse_qs(url.query, keep_blank_values=True)
        with bucket.lock:
            bucket.log.append((self.command, key))
        status = bucket.before(self.command, key)
        if status is not None:
            self._answer(status, b"<Error><Code>Weather</Code></Error>")
            return
        if self.command in ("GET", "HEAD"):
            self._read(bucket, key)  # outside the lock: a slow reader holds up nobody
            return
        with bucket.lock:
            self._serve(bucket, key, {name: values[0] for name, values in query.items()}, body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _serve(self, bucket: Bucket, key: str, query: dict[str, str], body: bytes) -> None:
        upload = query.get("uploadId", "")
        if "uploads" in query:
            name = str(len(bucket.log))
            bucket.uploads[name] = {}
            text = "<{0}><UploadId>{1}</UploadId></{0}>".format(
                "InitiateMultipartUploadResult", name
            )
            self._answer(200, text.encode())
        elif self.command == "DELETE":
            bucket.uploads.pop(upload, None)
            self._answer(204, b"")
        elif self.command == "POST":
            parts = bucket.uploads.pop(upload)
            bucket.objects[key] = b"".join(parts[number] for number in sorted(parts))
            done = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
            self._answer(200, done.encode())
        elif upload:
            bucket.uploads[upload][int(query["partNumber"])] = body
            self._answer(200, b"", ETag='"part"')
        else:
            self._write(bucket, key, body)

    def _write(self, bucket: Bucket, key: str, body: bytes) -> None:
        match, none_match = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if (match or none_match) and not bucket.has_conditions:
            self._answer(501, b"<Error><Code>NotImplemented</Code></Error>")
        elif (none_match and key in bucket.objects) or (
            match and match != _etag(bucket.objects.get(key))
        ):
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            bucket.objects[key] = body
            bucket.types[key] = self.headers.get("Cache-Control", "")
            self._answer(200, b"", ETag=_etag(body))

    def _read(self, bucket: Bucket, key: str) -> None:
        data = bucket.objects.get(key)
        if data is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, end = int(asked[1]), int(asked[2]) + 1
            shown = f"bytes {start}-{min(end, len(data)) - 1}/{len(data)}"
            self._answer(206, data[start:end], Content_Range=shown, ETag=_etag(data))
        else:
            self._answer(200, data, ETag=_etag(data))

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Last-Modified", formatdate(0, usegmt=True))
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """The log says it better."""


def _etag(data: bytes | None) -> str:
    return f'"{hashlib.md5(data or b"").hexdigest()}"'
