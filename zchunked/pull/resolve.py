"""Resolve a reference: manifest, perhaps behind indexes, each document checked against its digest."""

from __future__ import annotations

from collections.abc import Callable

from zchunked.errors import FormatError, IntegrityError, LimitError
from zchunked.interfaces import Document
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, digest_of, verify
from zchunked.oci.documents import Descriptor, Manifest, Platform, choose, parse_document
from zchunked.store import Store
from zchunked.store.images import ImageDocuments

_DEEPEST_INDEX = 3


Fetch = Callable[[Digest | None], Document]
"""One manifest request, retried as long as it makes sense. What is asked for again came damaged the first time."""


def resolve(
    digest: Digest | None, want: Platform, store: Store, fetch: Fetch, limits: Limits = DEFAULT_LIMITS
) -> ImageDocuments:
    """The image manifest behind a digest, or behind what `fetch(None)` asks for. What is here is not asked for."""
    data, media_type = _document(digest, None, store, fetch)
    root = here = digest_of(data)
    for _ in range(_DEEPEST_INDEX):
        document = parse_document(data, media_type, limits=limits)
        if isinstance(document, Manifest):
            _check_layers(document, limits)
            return ImageDocuments(root, here, data, document)
        chosen = choose(document, want)
        if chosen.size > limits.manifest_bytes:
            raise LimitError(
                f"the manifest {chosen.digest} has {chosen.size} bytes, the limit is {limits.manifest_bytes}"
            )
        data, media_type = _document(chosen.digest, chosen, store, fetch)
        here = chosen.digest
    raise FormatError(f"indexes within indexes, more than {_DEEPEST_INDEX} deep")


def _document(digest: Digest | None, listed: Descriptor | None, store: Store, fetch: Fetch) -> tuple[bytes, str]:
    said = listed.media_type if listed else ""
    if digest is not None and (found := store.document(digest)) is not None:
        return found, said
    answer = fetch(digest)
    try:
        _check_document(answer, digest, listed)
    except (IntegrityError, FormatError):
        answer = fetch(digest)
        _check_document(answer, digest, listed)
    store.put(answer.data)
    return answer.data, answer.media_type or said


def _check_document(answer: Document, digest: Digest | None, listed: Descriptor | None) -> None:
    """Nothing that is not what was promised, or cannot be read, is kept."""
    if listed is not None and len(answer.data) != listed.size:
        raise IntegrityError(f"manifest {listed.digest}: want {listed.size} bytes, got {len(answer.data)}")
    if digest is not None:
        verify(answer.data, digest, "the manifest")
    parse_document(answer.data, answer.media_type or (listed.media_type if listed else ""))


def _check_layers(manifest: Manifest, limits: Limits) -> None:
    sizes: dict[Digest, int] = {}
    for blob in (manifest.config, *manifest.layers):
        what, most = ("layer", limits.layer_bytes) if blob is not manifest.config else ("config", limits.manifest_bytes)
        if blob.size > most:
            raise LimitError(f"{what} {blob.digest} is listed with {blob.size} bytes, the limit is {most}")
        if sizes.setdefault(blob.digest, blob.size) != blob.size:
            raise FormatError(f"the manifest gives blob {blob.digest} two sizes")
        if blob.media_type.endswith("+encrypted"):
            raise FormatError(f"layer {blob.digest} is encrypted; decrypt the image first")
