"""Tags and referrers, passed through from the upstream (distribution-spec, "Content Discovery")."""

from __future__ import annotations

import re
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from zchunked.errors import FormatError, NotFoundError
from zchunked.interfaces import Listed, Listing, Source
from zchunked.serve.api.answers import Headers, Response
from zchunked.serve.api.names import Asked
from zchunked.serve.upstreams.upstream import Upstream

_KEYS = ("n", "last", "artifactType")
_LINK = re.compile(r"<[^>?]*\?([^>]*)>\s*;\s*rel=\"?next\"?", re.ASCII)


class Lists:
    """Thread-safe."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def __call__(self, asked: Asked, query: str) -> Response:
        """Raises NotFoundError, AccessDeniedError, TransferError."""
        path = f"{asked.kind}/{quote(asked.what, safe=':')}"

        def ask(source: Source) -> Listing:
            if not isinstance(source, Listed):
                raise NotFoundError(f"{asked.name} cannot be listed: this server is offline")
            return source.listing(path + _kept(query))

        found = self._upstream.ask(asked.reference(), ask)
        headers: Headers = [("Content-Type", found.media_type)]
        if found.filters:
            headers.append(("OCI-Filters-Applied", found.filters))
        if link := next_page(found.link, asked, query):
            headers.append(("Link", link))
        data = _renamed(found.data, asked.shown) if asked.kind == "tags" else found.data
        return Response(HTTPStatus.OK, headers, [data], len(data))


class _Tags(msgspec.Struct):
    name: str
    tags: list[str] | None = None


_TAGS = msgspec.json.Decoder(_Tags)


def _renamed(data: bytes, name: str) -> bytes:
    """The list of tags under the name that the client knows (distribution-spec, "Listing Tags")."""
    try:
        found = _TAGS.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(
            f"{name}: the registry's list of tags is not what it should be: {error}"
        ) from error
    return msgspec.json.encode(_Tags(name, found.tags or []))


def _kept(query: str, namespace: str = "") -> str:
    pairs = [(key, value) for key, value in parse_qsl(query) if key in _KEYS]
    if namespace:
        pairs.append(("ns", namespace))
    return f"?{urlencode(pairs)}" if pairs else ""


def next_page(link: str | None, asked: Asked, query: str) -> str | None:
    """The Link header to the next page, rewritten from the upstream's to this server's form."""
    found = _LINK.search(link) if link else None
    if found is None:
        return None
    namespace = dict(parse_qsl(query)).get("ns", "")
    return f'</v2/{asked.shown}/{asked.kind}/{asked.what}{_kept(found[1], namespace)}>; rel="next"'
