"""An image as the store or a source knows it: documents checked against their digests, platform chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zchunked.digest import Digest, digest_of, verify
from zchunked.errors import FormatError, IntegrityError, LimitError, NotFoundError
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci import Config, Descriptor, Manifest, Platform, choose, parse_config, parse_document
from zchunked.seams import Document
from zchunked.store import Store

_DEEPEST_INDEX = 3


@dataclass(frozen=True, slots=True)
class ImageDocuments:
    """`root` is the digest of what the reference names: the manifest itself, or an index around it."""

    root: Digest
    manifest_digest: Digest
    manifest_data: bytes
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class StoredImage:
    """What an export needs to know."""

    name: str
    documents: ImageDocuments
    config_data: bytes
    config: Config


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


def load(store: Store, name: str, digest: Digest | None, platform: Platform | None) -> StoredImage:
    """A pulled image by the name it was pulled under. NotFoundError unless all of it is here and proved."""
    fitting = [
        image
        for image in store.images()
        if image.name == name
        and (platform is None or image.platform == str(platform))
        and digest in (None, image.root, image.manifest)
    ]
    if not fitting:
        raise NotFoundError(f"{name} is not in the store; pull it first (zpull images lists what is here)")
    found = fitting[0]
    data = store.document(found.manifest)
    manifest = parse_document(data) if data is not None else None
    if data is None or not isinstance(manifest, Manifest):
        raise NotFoundError(f"the manifest of {name} is damaged in the store; pull the image again")
    config_data = store.get(manifest.config.digest, manifest.config.size)
    if config_data is None:
        raise NotFoundError(f"the config of {name} is damaged in the store; pull the image again")
    config = parse_config(config_data, len(manifest.layers))
    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        if store.proof(layer.digest, diff_id) is None:
            raise NotFoundError(f"layer {layer.digest} of {name} is not complete in the store; pull the image again")
    return StoredImage(name, ImageDocuments(found.root, found.manifest, data, manifest), config_data, config)
