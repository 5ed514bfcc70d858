"""A registry on loopback that serves images, misbehaves as told, and counts every byte.

    with Registry({"v1": image([chunked_layer(tar)])}, auth="bearer", redirect=True) as registry:
        client.pull(registry.reference("v1"))
        assert registry.accounts.blob_bytes == …

`python -m tests.helpers.servers.registry LAYOUT` serves an OCI layout directory until interrupted.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Literal, Self, get_args
from urllib.parse import parse_qs, urlsplit

from tests.helpers.build import layers
from tests.helpers.build.images import OCI_INDEX, Document, Layout, layout, read_layout
from tests.helpers.build.toc import dumps
from tests.helpers.servers.accounts import Accounts, Kind, Request
from tests.helpers.servers.answers import (
    Answer,
    MultiRange,
    SingleRange,
    error,
    parse_ranges,
    plain,
    ranged,
)
from tests.helpers.servers.faults import Outage, Rule, Script, on, reset
from tests.helpers.servers.loopback import LoopbackServer
from tests.helpers.servers.tickets import Tickets, basic
from tests.helpers.servers.wire import Wire

Host = Literal["registry", "cdn"]

_API = re.compile(r"/v2/(?P<name>.+)/(?P<what>manifests|blobs|tags|referrers)/(?P<which>[^/]+)")
_STATIC = re.compile(
    r"/layout/(?:(?P<file>index\.json|oci-layout)|blobs/(?P<algorithm>\w+)/(?P<hex>\w+))"
)


@dataclass
class Registry:
    """Switches may be changed while it runs, except rates, rules, seed, port, lifetimes."""

    images: Mapping[str, Document] | Layout | Path
    """By tag; or an OCI layout, in memory or as a directory."""
    _: KW_ONLY
    repository: str = "demo"
    auth: Literal["basic", "bearer"] | None = None
    credentials: tuple[str, str] | None = None
    """What `basic` and the token endpoint of `bearer` ask for. None: tokens for everyone."""
    token_seconds: float | None = None
    token_uses: int | None = None
    redirect: bool = False
    """Blobs are sent by a second server, the CDN, under signed URLs."""
    redirect_status: int = 307
    cdn_name: Literal["127.0.0.1", "localhost", "registry"] = "127.0.0.1"
    """`registry`: it redirects to itself, to paths of another kind."""
    url_seconds: float | None = None
    url_uses: int | None = None
    multi_range: MultiRange = "206"
    single_range: SingleRange = "206"
    max_ranges: int | None = None
    """More of them in one request are answered with 400."""
    boundary: str = "part-of-the-blob"
    rate: float | None = None
    """Body bytes per second, of all connections together."""
    latency: float = 0.0
    """Seconds before each answer."""
    connect_latency: float = 0.0
    """Seconds before a new connection is heard."""
    faults: Sequence[Rule] = ()
    outages: Sequence[Outage] = ()
    seed: int = 0
    port: int = 0

    def __enter__(self) -> Self:
        if isinstance(self.images, Path):
            self.content = read_layout(self.images)
        else:
            self.content = self.images if isinstance(self.images, Layout) else layout(self.images)
        self.accounts = Accounts()
        self.stopping = threading.Event()
        self.tokens = Tickets(self.seed, seconds=self.token_seconds, uses=self.token_uses)
        self.urls = Tickets(self.seed + 1, seconds=self.url_seconds, uses=self.url_uses)
        self.wire = Wire(self.accounts, self.stopping, rate=self.rate, outages=self.outages)
        self._script = Script(self.faults, self.seed)
        self._cached: set[str] = set()
        self._configs, self._toc_at = _landmarks(self.content)
        self._servers = {
            "registry": LoopbackServer(self._greet, partial(self._serve, "registry"), self.port)
        }
        if self.redirect:
            self._servers["cdn"] = LoopbackServer(self._greet, partial(self._serve, "cdn"), 0)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: object) -> None:
        """Raises what went wrong inside, unless something else is on its way already."""
        self.stopping.set()
        for server in self._servers.values():
            server.stop()
            if kind is None and server.errors:
                raise server.errors[0]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._servers['registry'].server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def cdn(self) -> str:
        """Host and port, as redirects name it."""
        if self.cdn_name == "registry":
            return self.host
        return f"{self.cdn_name}:{self._servers['cdn'].server_port}"

    @property
    def layout_url(self) -> str:
        """The content as a static OCI layout: no tokens or redirects, but faults and habits."""
        return f"{self.url}/layout"

    def reference(self, tag: str) -> str:
        return f"{self.host}/{self.repository}:{tag}"

    # ── what is asked, and what it deserves ──

    def _greet(self) -> None:
        self.accounts.connected()
        self.wire.weather()
        self.wire.wait(self.connect_latency)

    def _serve(self, host: Host, handler: BaseHTTPRequestHandler) -> None:
        """One request, from its head to the last byte of its answer."""
        request = self._request(handler, host)
        self.accounts.open(request)
        self.wire.weather()
        self.wire.wait(self.latency)
        answer = self._answer(request, handler.headers.get("Authorization"))
        seconds, sent = self.wire.seconds, self.accounts.body_bytes
        answer = self._script.apply(answer, request, sent=sent, seconds=seconds)
        self.wire.send(handler.connection, answer, request)

    def _request(self, handler: BaseHTTPRequestHandler, host: Host) -> Request:
        path = urlsplit(handler.path).path
        asked = handler.headers.get("Range")
        kind: Kind = "other"
        digest = None
        if self.cdn_name == "registry" and path.startswith("/blobs/"):
            host = "cdn"
        if path in {"/v2/", "/v2"}:
            kind = "ping"
        elif path == "/token":
            kind = "token"
        elif host == "cdn":
            digest = path.removeprefix("/blobs/")
            kind = self._kind_of(digest, asked)
        elif api := _API.fullmatch(path):
            digest = api["which"] if ":" in api["which"] else None
            if api["what"] == "blobs":
                kind = (
                    "redirect"
                    if self.redirect and handler.command == "GET"
                    else self._kind_of(digest, asked)
                )
            else:
                kind = "manifest" if api["what"] == "manifests" else "tags"
        elif static := _STATIC.fullmatch(path):
            digest = None if static["file"] else f"{static['algorithm']}:{static['hex']}"
            kind = "manifest" if static["file"] else self._kind_of(digest, asked)
        authorized = "Authorization" in handler.headers
        return Request(0, host, handler.command, handler.path, kind, digest, asked, authorized)

    def _kind_of(self, digest: str | None, asked: str | None) -> Kind:
        if digest in self.content.manifests:
            return "manifest"
        if digest in self._configs:
            return "config"
        spans = parse_ranges(asked, sys.maxsize) or []
        toc_at = self._toc_at.get(digest or "", sys.maxsize)
        return "toc" if any(end > toc_at for _, end in spans) else "blob"

    def _answer(self, request: Request, authorization: str | None) -> Answer:
        url = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if request.method not in {"GET", "HEAD"}:
            return error(405, "UNSUPPORTED", "this registry is for reading")
        if request.host == "cdn":
            if self.urls.use(query.get("signature", ""), url.path):
                return self._blob(request)
            return plain(
                403,
                b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
            )
        if request.kind == "token":
            return self._token(query, authorization)
        if static := _STATIC.fullmatch(url.path):
            return self._file(static["file"]) if static["file"] else self._blob(request)
        return self._refusal(authorization) or self._api(request, url.path)

    def _api(self, request: Request, path: str) -> Answer:
        if request.kind == "ping":
            return plain(
                200, b"{}", "application/json", Docker_Distribution_Api_Version="registry/2.0"
            )
        api = _API.fullmatch(path)
        if not api or api["name"] != self.repository:
            return error(404, "NAME_UNKNOWN", "repository name not known to registry")
        if request.kind == "manifest":
            return self._manifest(api["which"])
        if api["what"] == "referrers":
            return self._referrers(api["which"], urlsplit(request.path).query)
        if request.kind == "tags":
            return plain(
                200,
                dumps({"name": self.repository, "tags": sorted(self.content.tags)}),
                "application/json",
            )
        if request.kind == "redirect" and request.digest in self.content.blobs:
            path = f"/blobs/{request.digest}"
            location = f"http://{self.cdn}{path}?signature={self.urls.issue(path)}"
            return plain(self.redirect_status, b"over there", Location=location)
        return self._blob(request)

    def _refusal(self, authorization: str | None) -> Answer | None:
        """401 with a challenge, unless the header is good."""
        if self.auth is None:
            return None
        scope = f"repository:{self.repository}:pull"
        if self.auth == "basic":
            if authorization == basic(self.credentials or ("user", "secret")):
                return None
            challenge = 'Basic realm="loopback"'
        else:
            scheme, _, token = (authorization or "").partition(" ")
            if scheme.lower() == "bearer" and self.tokens.use(token, scope):
                return None
            challenge = f'Bearer realm="{self.url}/token",service="loopback",scope="{scope}"'
            challenge += ',error="invalid_token"' if token else ""
        return error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)

    def _token(self, query: Mapping[str, str], authorization: str | None) -> Answer:
        if self.credentials and authorization != basic(self.credentials):
            return error(401, "UNAUTHORIZED", "incorrect username or password")
        if query.get("service") != "loopback":
            return error(400, "UNSUPPORTED", "no such service")
        token = self.tokens.issue(query.get("scope", ""))
        seconds = 300 if self.token_seconds is None else max(1, round(self.token_seconds))
        body = {"token": token, "access_token": token, "expires_in": seconds}
        return plain(200, dumps(body), "application/json")

    def _manifest(self, which: str) -> Answer:
        digest = self.content.tags.get(which, which)
        if digest not in self.content.manifests:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, data = self.content.manifests[digest]
        return plain(200, data, media_type, Docker_Content_Digest=digest)

    def _referrers(self, subject: str, query: str) -> Answer:
        """Those of an unknown digest are none (distribution-spec, "Listing Referrers")."""
        wanted = parse_qs(query).get("artifactType", [""])[0]
        listed = []
        for digest, (media_type, data) in self.content.manifests.items():
            document = json.loads(data)
            kind = document.get("artifactType", "")
            if document.get("subject", {}).get("digest") == subject and wanted in ("", kind):
                entry = {"mediaType": media_type, "digest": digest, "size": len(data)}
                listed.append(entry | ({"artifactType": kind} if kind else {}))
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
        applied = {"OCI_Filters_Applied": "artifactType"} if wanted else {}
        return plain(200, dumps(index), OCI_INDEX, **applied)

    def _file(self, name: str) -> Answer:
        data = (
            self.content.index_json() if name == "index.json" else b'{"imageLayoutVersion":"1.0.0"}'
        )
        return plain(200, data, "application/json")

    def _blob(self, request: Request) -> Answer:
        digest = request.digest or ""
        blob = self.content.blobs.get(digest)
        if blob is None and digest in self.content.manifests:
            blob = self.content.manifests[digest][1]
        if blob is None:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if (
            self.max_ranges is not None
            and len(parse_ranges(request.range, len(blob)) or []) > self.max_ranges
        ):
            return error(400, "UNSUPPORTED", "too many ranges")
        cached = digest in self._cached
        self._cached.add(digest)
        answer = ranged(
            blob,
            request.range,
            multi=self.multi_range,
            single=self.single_range,
            cached=cached,
            boundary=self.boundary,
        )
        return answer.with_headers(Docker_Content_Digest=digest, ETag=f'"{digest}"')


def _landmarks(content: Layout) -> tuple[set[str], dict[str, int]]:
    """The configs, and where the indexes of each zstd:chunked layer begin."""
    configs: set[str] = set()
    toc_at: dict[str, int] = {}
    for _, data in content.manifests.values():
        with suppress(
            ValueError, KeyError, TypeError, AttributeError, RecursionError
        ):  # hostile ones are served all the same
            manifest = json.loads(data)
            if "config" in manifest:
                configs.add(manifest["config"]["digest"])
            for layer in manifest.get("layers", ()):
                for prefix in (layers.PREFIX, layers.OLD_PREFIX):
                    if position := layer.get("annotations", {}).get(prefix + "manifest-position"):
                        toc_at[layer["digest"]] = int(position.partition(":")[0])
    return configs, toc_at


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.helpers.servers.registry", description="Serve an OCI layout."
    )
    parser.add_argument("layout", type=Path, help="an OCI layout directory")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--repository", default="demo")
    parser.add_argument("--auth", choices=["basic", "bearer"])
    parser.add_argument(
        "--redirect", action="store_true", help="send blobs from a second port, under signed URLs"
    )
    parser.add_argument("--multi-range", default="206", choices=get_args(MultiRange))
    parser.add_argument("--single-range", default="206", choices=get_args(SingleRange))
    parser.add_argument("--rate", type=float, help="bytes per second")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds per request")
    parser.add_argument(
        "--flaky", type=int, metavar="BYTES", help="reset connections after at most so many bytes"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args(arguments))
    images, flaky = options.pop("layout"), options.pop("flaky")
    rules = [on(("toc", "blob"), reset(after=(0, flaky)))] if flaky else []
    # a shell starts background jobs with SIGINT ignored
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with Registry(images, faults=rules, **options) as registry:
        for tag in registry.content.tags:
            print(registry.reference(tag), flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
        print(
            f"{registry.accounts.count()} requests, {registry.accounts.body_bytes} body bytes",
            flush=True,
        )


if __name__ == "__main__":
    main()
