"""Find what refers to an image (signatures, attestations, SBOMs), to be pushed with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from zchunked.errors import FormatError, LimitError
from zchunked.export.shipment import Parcel, Shipment
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.digest import Digest, parse_digest
from zchunked.oci.documents import OCI_MANIFEST, Descriptor
from zchunked.pull.objects.fetcher import ObjectFetcher
from zchunked.ranges import ByteRange
from zchunked.store import Store

_DEEPEST = 3  # an index in an index in an index


def with_referrers(objects: ObjectFetcher, store: Store, shipment: Shipment) -> Shipment:
    """The shipment, and before its root all referrers of its documents, proved and stored.

    Raises FormatError for a list that is none, and what fetching raises.
    """
    found = shipment
    for subject, _ in shipment.documents:
        for digest in _listed(objects, subject.digest):
            found = found.after(listed_documents(objects, store, digest))
    return found


def _listed(objects: ObjectFetcher, subject: Digest) -> Sequence[Digest]:
    """By the referrers API, otherwise by the tag that stands in for it."""
    for path in (f"referrers/{subject}", f"manifests/{subject.replace(':', '-')}"):
        if (data := objects.listing(path)) is None:
            continue
        document = _object(data, "the list of referrers")
        entries = document.get("manifests")
        if not isinstance(entries, list):
            raise FormatError("the list of referrers is not an index")
        if len(entries) > DEFAULT_LIMITS.instances_count:
            raise LimitError(
                f"{len(entries)} referrers, the limit is {DEFAULT_LIMITS.instances_count}"
            )
        digests = [
            parse_digest(str(_member(one, "digest")), "digest of a referrer") for one in entries
        ]
        if digests or path.startswith("manifests"):
            return digests
    return []


def listed_documents(
    objects: ObjectFetcher, store: Store, digest: Digest, listed_as: str = "", depth: int = 0
) -> Shipment:
    """A manifest with its blobs, or an index with all it lists, proved and stored.

    `listed_as`: the media type that an index gives it.
    """
    data = objects.document(digest)
    document = _object(data, f"the document {digest}")
    media_type = document.get("mediaType")
    kind = media_type if isinstance(media_type, str) else listed_as or OCI_MANIFEST
    described = Descriptor(kind, digest, len(data))
    found = Shipment([], [(described, data)], None)
    if isinstance(children := document.get("manifests"), list):
        if depth >= _DEEPEST:
            raise LimitError(f"index {digest} is in {depth} others, the limit is {_DEEPEST}")
        for one in reversed(children):
            child = parse_digest(str(_member(one, "digest")), "digest of an index's entry")
            kind = str(_member(one, "mediaType") or "")
            found = found.after(listed_documents(objects, store, child, kind, depth + 1))
        return found
    for one in [
        document.get("config"),
        *(document.get("layers") or ()),
        *(document.get("blobs") or ()),
    ]:
        if one is None:
            continue
        blob = objects.fetch(parse_digest(str(_member(one, "digest")), "digest of a listed blob"))
        found.parcels.append(Parcel(blob, partial(_bytes_of, store, blob)))
    return found


def _bytes_of(store: Store, blob: Descriptor, start: int) -> Iterable[bytes]:
    return store.stream(blob.digest, ByteRange(start, blob.size)) if start < blob.size else ()


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON: {str(error)[:100]}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{what} is not a JSON object")
    return found


def _member(one: object, key: str) -> object:
    if not isinstance(one, dict):
        raise FormatError("a referrer's document lists something else than descriptors")
    return one.get(key)
