"""Responses of the distribution API: documents, and errors in the spec's form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from zchunked.errors import (
    AccessDeniedError,
    FormatError,
    IntegrityError,
    LocalError,
    NotFoundError,
    TransferError,
    UsageError,
    ZPullError,
)
from zchunked.oci.digest import Digest, parse_digest
from zchunked.serve.api.documents import ServedManifest

Headers = list[tuple[str, str]]
DIGEST = "Docker-Content-Digest"


@dataclass(slots=True)
class Response:
    """`length`: bytes of the body, which a HEAD leaves out."""

    status: int
    headers: Headers
    body: Iterable[bytes]
    length: int


def manifest_answer(found: ServedManifest) -> Response:
    """A manifest, with its age where that is above nothing."""
    headers: Headers = [
        ("Content-Type", found.media_type),
        (DIGEST, found.digest),
        ("Etag", f'"{found.digest}"'),
    ]
    if found.age is not None:  # RFC 9111, 5.5: 110 was "Response is Stale"
        headers.append(
            (
                "Warning",
                f'110 zpull "the upstream does not answer; as it was {found.age:.0f} s ago"',
            )
        )
        headers.append(("Age", f"{found.age:.0f}"))
    return Response(HTTPStatus.OK, headers, [found.data], len(found.data))


def asked_digest(text: str) -> Digest:
    """The digest of a path. Raises an error that is answered with 400."""
    try:
        return parse_digest(text, "the blob's digest")
    except FormatError as error:
        raise _DigestError(str(error)) from error


class _DigestError(UsageError):
    """What should be a digest is none."""


_KINDS: tuple[tuple[type[ZPullError], HTTPStatus, str], ...] = (
    (_DigestError, HTTPStatus.BAD_REQUEST, "DIGEST_INVALID"),
    (UsageError, HTTPStatus.BAD_REQUEST, "NAME_INVALID"),
    (NotFoundError, HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN"),
    (AccessDeniedError, HTTPStatus.FORBIDDEN, "DENIED"),
    (TransferError, HTTPStatus.BAD_GATEWAY, "UPSTREAM"),
    (IntegrityError, HTTPStatus.BAD_GATEWAY, "DIGEST_INVALID"),
    (FormatError, HTTPStatus.BAD_GATEWAY, "MANIFEST_INVALID"),
    (LocalError, HTTPStatus.INSUFFICIENT_STORAGE, "STORE"),
)


def failed(error: ZPullError, *, is_blob: bool) -> Response:
    """The spec's JSON error, with the true reason as message (distribution-spec)."""
    if is_blob and isinstance(error, NotFoundError):
        return problem(HTTPStatus.NOT_FOUND, "BLOB_UNKNOWN", str(error))
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            return problem(status, code, str(error))
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "UNKNOWN", str(error))


def problem(status: HTTPStatus, code: str, message: str) -> Response:
    """An answer that refuses."""
    return json_answer(status, {"errors": [{"code": code, "message": message[:1000]}]})


def json_answer(status: HTTPStatus, document: object) -> Response:
    """A document."""
    data = msgspec.json.encode(document)
    return Response(status, [("Content-Type", "application/json")], [data], len(data))


def text_answer(status: HTTPStatus, text: str) -> Response:
    """Plain text."""
    data = text.encode()
    return Response(status, [("Content-Type", "text/plain; charset=utf-8")], [data], len(data))
