"""A registry on loopback that takes images, checks every rule of push, and misbehaves.

`RULES` has what a client may break, by name.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<what>blobs/uploads/|blobs/|manifests/)(?P<which>.*)")
_CHUNK = re.compile(r"(\d+)-(\d+)")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_BLOCK = 16 << 10

RULES = {
    "begin-empty": "POST of an upload has Content-Length: 0",
    "chunk-headers": "a chunk has Content-Length, Content-Range and Content-Type octet-stream",
    "chunk-length": "Content-Range and Content-Length agree",
    "chunk-minimum": "no chunk but the last is shorter than OCI-Chunk-Min-Length",
    "ask-after-416": "after a 416 the offset is asked for before another chunk is sent",
    "close-digest": "the PUT that ends an upload states one digest",
    "close-headers": "that PUT has a Content-Length, and Content-Type octet-stream with a body",
    "location": "each request goes to the newest Location, its query kept",
    "host": "an upload goes to the host of its Location",
    "credentials": "another host is shown no credentials",
    "strangers": "another host is asked for nothing but uploads",
    "manifest-type": "Content-Type of a manifest is its mediaType",
    "manifest-digest": "a manifest put by digest is what it says",
    "manifest-tag": "a tag is one by the grammar",
    "blobs-first": "a manifest comes after its blobs",
    "children-first": "an index comes after its manifests",
    "referrers-tag": "the tag in a list's stead is written only where there is no OCI-Subject",
}


@dataclass
class Session:
    """One upload. Its location changes with each answer that moves it; older ones are invalid."""

    repository: str
    data: bytearray = field(default_factory=bytearray)
    step: int = 0
    is_short: bool = False
    """The last chunk was shorter than any but the last may be."""
    has_refused: bool = False
    """The last answer was 416."""


@dataclass
class UploadRegistry:
    """Switches may be changed while it runs, except `elsewhere`.

    `broken`: the names of the rules that the client has broken.
    """

    _: KW_ONLY
    elsewhere: bool = False
    """Uploads go to a second server, which must see no credentials."""
    needs_login: bool = False
    keeps_partial: bool = True
    """Of a chunk that broke off, what came stays."""
    cut_every: int | None = None
    """The connection is reset each time so many body bytes have come in all."""
    refuses_chunks: int | None = None
    """The status that a PATCH gets."""
    longest_chunk: int | None = None
    least_chunk: int = 0
    tells_offset: bool = True
    lie: Callable[[int], int] | None = None
    """What a session says of its offset when it is asked, so many times as `lies_left` says."""
    lies_left: int = 0
    lies_to_chunks: int = 0
    """So many chunks more are answered with `lie`."""
    relative: bool = False
    """Location is relative to the URL that was asked."""
    has_query: bool = True
    """Location has one; without it all that opens an upload is in its path."""
    lose_chunks: int = 0
    """So many chunks more are refused, for the session is forgotten."""
    lose_ends: int = 0
    """So many ends more are refused, for the session is forgotten."""
    lose_answers: int = 0
    """So many chunks more are kept and not answered."""
    skips: int = 0
    """So many chunks more get a 416, whatever their offset."""
    renames: bool = False
    """Of a manifest that was put it says another digest."""
    denies: bool = False
    mangles: int = 0
    """So many blobs more get another byte before their digest is looked at."""
    lose_sessions: int = 0
    """So many sessions more are forgotten when they are asked about."""
    fail_puts: int = 0
    """So many more ends of uploads are carried out and not answered."""
    mounts: bool = True
    acknowledges_subjects: bool = True
    """Whether it says of a manifest with a subject that it lists it (OCI-Subject)."""
    seconds_per_block: float = 0.0
    """How long it takes over 16 KiB."""

    def __enter__(self) -> Self:
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, bytes]] = {}
        self.referrers: dict[str, bytes] = {}
        """By subject: what the referrers API answers."""
        self.sessions: dict[str, Session] = {}
        self.broken: list[str] = []
        self.puts: list[str] = []
        """In order: digests of blobs and manifests, and tags."""
        self.hits: Counter[str] = Counter()
        self.received = 0
        self.tokens_seen: set[str] = set()
        self._since_cut = 0
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._servers = [self._start("registry")]
        if self.elsewhere:
            self._servers.append(self._start("elsewhere"))
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _start(self, role: str) -> ThreadingHTTPServer:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                try:
                    registry._serve(role, self)
                except OSError:
                    self.close_connection = True

            do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
        return server

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._servers[0].server_port}"

    @staticmethod
    def digest(data: bytes) -> str:
        return _digest(data)

    def blob(self, repository: str, digest: str) -> bytes:
        return self.blobs[repository][digest]

    # ── requests ──

    def _serve(self, role: str, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        method = handler.command
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/token" or "/referrers/" in url.path:
            return self._aside(handler, url.path, query)
        found = _PATH.fullmatch(url.path)
        if found is None:
            return _answer(handler, 404)
        with self._lock:
            kind = {"blobs/uploads/": "upload", "blobs/": "blob", "manifests/": "manifest"}[
                found["what"]
            ]
            self.hits[f"{method} {kind}"] += 1
        authorization = handler.headers.get("Authorization")
        if role == "elsewhere" and authorization:
            self._break("credentials")
        if (
            role == "registry"
            and self.needs_login
            and self._refuses(handler, found["name"], method, authorization)
        ):
            return None
        if kind == "upload":
            return self._upload(role, handler, found["name"], found["which"], query)
        if role == "elsewhere":
            self._break("strangers")
        if kind == "blob":
            data = self.blobs.get(found["name"], {}).get(found["which"])
        else:
            data = self.manifests.get(found["name"], {}).get(found["which"])
        if kind == "manifest" and method == "PUT":
            return self._manifest(handler, found["name"], found["which"])
        if data is None:
            return _answer(handler, 404)
        return _answer(handler, 200, data, Docker_Content_Digest=_digest(data))

    def _aside(self, handler: BaseHTTPRequestHandler, path: str, query: dict[str, str]) -> None:
        if path == "/token":
            self.tokens_seen.add(query.get("scope", ""))
            return _answer(
                handler, 200, json.dumps({"token": "t-" + query.get("scope", "")}).encode()
            )
        listed = self.referrers.get(path.rpartition("/")[2])
        return _answer(handler, 404) if listed is None else _answer(handler, 200, listed)

    def _refuses(
        self, handler: BaseHTTPRequestHandler, name: str, method: str, authorization: str | None
    ) -> bool:
        wanted = (
            f"repository:{name}:pull,push"
            if method not in ("GET", "HEAD")
            else f"repository:{name}:pull"
        )
        if self.denies:
            _answer(handler, 403)
            return True
        if wanted in (authorization or "").replace(
            ",push", "" if wanted.endswith("pull") else ",push"
        ):
            return False
        if (size := int(handler.headers.get("Content-Length") or 0)) < 1 << 20:
            handler.rfile.read(size)
        challenge = f'Bearer realm="http://{self.host}/token",service="s",scope="{wanted}"'
        _answer(handler, 401, b"{}", WWW_Authenticate=challenge)
        return True

    def _break(self, rule: str) -> None:
        assert rule in RULES
        with self._lock:
            self.broken.append(rule)

    # ── uploads ──

    def _upload(
        self,
        role: str,
        handler: BaseHTTPRequestHandler,
        name: str,
        which: str,
        query: dict[str, str],
    ) -> None:
        if handler.command == "POST":
            return self._begin(handler, name, query)
        if self.elsewhere and role == "registry":
            self._break("host")
        which, _, step = which.partition("/")
        session = self.sessions.get(which)
        if session is None:
            self._drain(handler, None)
            return _answer(handler, 404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        is_newest = query.get("step", step) == str(session.step)
        is_whole = query.get("secret") == "of-this-upload" or not self.has_query
        if not is_whole or (not is_newest and handler.command != "GET"):
            self._break("location")
        if handler.command == "GET":
            session.has_refused = False
            return self._status(handler, which, session)
        if handler.command == "PATCH":
            return self._patch(handler, which, session)
        if urlsplit(handler.path).query.count("digest=") != 1:
            self._break("close-digest")
        return self._close(handler, which, session, query.get("digest", ""))

    def _begin(self, handler: BaseHTTPRequestHandler, name: str, query: dict[str, str]) -> None:
        if handler.headers.get("Content-Length") != "0":
            self._break("begin-empty")
        mounted = self.blobs.get(query.get("from", ""), {}).get(query.get("mount", ""))
        if self.mounts and mounted is not None:
            self.blobs.setdefault(name, {})[query["mount"]] = mounted
            return _answer(handler, 201, Location=f"/v2/{name}/blobs/{query['mount']}")
        which = f"upload-{next(self._numbers)}"
        session = self.sessions[which] = Session(name)
        least = {"OCI_Chunk_Min_Length": str(self.least_chunk)} if self.least_chunk else {}
        return _answer(
            handler, 202, b"", Location=self._location(which, session), Range="0-0", **least
        )

    def _location(self, which: str, session: Session) -> str:
        last = f"{which}/{session.step}"
        if self.has_query:
            last = f"{which}?step={session.step}&secret=of-this-upload"
        path = f"/v2/{session.repository}/blobs/uploads/{last}"
        if self.relative:
            return f"../uploads/{last}" if self.has_query else path
        return f"http://127.0.0.1:{self._servers[-1].server_port}{path}" if self.elsewhere else path

    def _status(self, handler: BaseHTTPRequestHandler, which: str, session: Session) -> None:
        if self.lose_sessions:
            self.lose_sessions -= 1
            del self.sessions[which]
            return _answer(handler, 404)
        offset = len(session.data)
        if self.lie is not None and self.lies_left:
            offset, self.lies_left = self.lie(offset), self.lies_left - 1
        return _answer(
            handler, 204, Location=self._location(which, session), Range=f"0-{max(offset - 1, 0)}"
        )

    def _patch(self, handler: BaseHTTPRequestHandler, which: str, session: Session) -> None:
        if self.refuses_chunks is not None:
            self._drain(handler, None)
            return _answer(handler, self.refuses_chunks)
        span = self._chunk(handler, session)
        if span is None:
            return _answer(handler, 400)
        start, length = span
        if refusal := self._refusal(which, session, start, length):
            self._drain(handler, None)
            return _answer(handler, refusal)
        before = len(session.data)
        try:
            self._drain(handler, session.data)
        except OSError:
            if not self.keeps_partial:
                del session.data[before:]
            raise
        session.is_short = length < self.least_chunk
        if self.lose_answers:
            self.lose_answers -= 1
            _reset(handler)
        session.step += 1
        offset = len(session.data)
        if self.lie is not None and self.lies_to_chunks:
            offset, self.lies_to_chunks = self.lie(offset), self.lies_to_chunks - 1
        told = {"Range": f"0-{max(offset - 1, 0)}"} if self.tells_offset else {}
        return _answer(handler, 202, b"", Location=self._location(which, session), **told)

    def _chunk(self, handler: BaseHTTPRequestHandler, session: Session) -> tuple[int, int] | None:
        """Where a chunk starts and how long it is; None where it does not say."""
        length = handler.headers.get("Content-Length", "")
        found = _CHUNK.fullmatch(handler.headers.get("Content-Range", ""))
        kind = handler.headers.get("Content-Type")
        if not length or found is None or kind != "application/octet-stream":
            self._break("chunk-headers")
            return None
        if int(found[2]) + 1 - int(found[1]) != int(length):
            self._break("chunk-length")
        if session.is_short:
            self._break("chunk-minimum")
        if session.has_refused:
            self._break("ask-after-416")
        return int(found[1]), int(length)

    def _refusal(self, which: str, session: Session, start: int, length: int) -> int | None:
        """The status that a chunk gets instead of being taken."""
        if self.lose_chunks:
            self.lose_chunks -= 1
            del self.sessions[which]
            return 404
        if self.longest_chunk is not None and length > self.longest_chunk:
            return 413
        if start != len(session.data) or self.skips:
            self.skips -= bool(self.skips)
            session.has_refused = True
            return 416
        return None

    def _close(
        self, handler: BaseHTTPRequestHandler, which: str, session: Session, digest: str
    ) -> None:
        length = handler.headers.get("Content-Length")
        kind = handler.headers.get("Content-Type")
        if length is None or (length != "0" and kind != "application/octet-stream"):
            self._break("close-headers")
        if self.lose_ends:
            self.lose_ends -= 1
            del self.sessions[which]
            self._drain(handler, None)
            return _answer(handler, 404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        whole = bytearray(session.data)
        self._drain(handler, whole)
        if self.mangles and whole:
            self.mangles -= 1
            whole[0] ^= 1
        del self.sessions[which]
        if _digest(whole) != digest:
            return _answer(handler, 400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        self.blobs.setdefault(session.repository, {})[digest] = bytes(whole)
        self.puts.append(digest)
        if self.fail_puts:
            self.fail_puts -= 1
            _reset(handler)
        return _answer(handler, 201, Location=f"/v2/{session.repository}/blobs/{digest}")

    def _drain(self, handler: BaseHTTPRequestHandler, into: bytearray | None) -> None:
        """The body; raises OSError where the connection ends before it does."""
        left = int(handler.headers.get("Content-Length") or 0)
        while left:
            data = handler.rfile.read(min(left, _BLOCK))
            if not data:
                raise ConnectionError
            left -= len(data)
            if self.seconds_per_block:
                time.sleep(self.seconds_per_block)
            with self._lock:
                self.received += len(data)
                self._since_cut += len(data)
                is_cut = self.cut_every is not None and self._since_cut >= self.cut_every
                self._since_cut = 0 if is_cut else self._since_cut
            if into is not None:
                into += data
            if is_cut:
                _reset(handler)

    # ── manifests ──

    def _manifest(self, handler: BaseHTTPRequestHandler, name: str, which: str) -> None:
        data = handler.rfile.read(int(handler.headers["Content-Length"]))
        document: dict[str, Any] = json.loads(data)
        digest = _digest(data)
        if handler.headers.get("Content-Type") != document["mediaType"]:
            self._break("manifest-type")
        if ":" in which and which != digest:
            self._break("manifest-digest")
        is_tag = ":" not in which
        if is_tag and not _TAG.fullmatch(which):
            self._break("manifest-tag")
        if is_tag and which.startswith("sha256-") and self.acknowledges_subjects:
            self._break("referrers-tag")
        self.puts.append(which)
        here = self.blobs.get(name, {})
        listed = [
            *document.get("layers", ()),
            *([document["config"]] if "config" in document else []),
        ]
        if any(one["digest"] not in here for one in listed):
            self._break("blobs-first")
            return _answer(handler, 404, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
        if any(
            one["digest"] not in self.manifests.get(name, {})
            for one in document.get("manifests", ())
        ):
            self._break("children-first")
        self.manifests.setdefault(name, {}).update({digest: data, which: data})
        is_told = "subject" in document and self.acknowledges_subjects
        subject = {"OCI_Subject": document["subject"]["digest"]} if is_told else {}
        said = "sha256:" + "0" * 64 if self.renames else digest
        return _answer(handler, 201, Docker_Content_Digest=said, **subject)


def _digest(data: bytes | bytearray) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    raise ConnectionResetError


def _answer(
    handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", /, **headers: str
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    if status != 204:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
    handler.wfile.flush()
