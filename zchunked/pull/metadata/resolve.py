"""Resolve a reference to its manifest, perhaps behind indexes; check each document's digest."""

from __future__ import annotations

from collections.abc import Callable

from zchunked.errors import (
    ArtifactError,
    FormatError,
    IntegrityError,
    LimitError,
    NoMatchError,
    ZPullError,
)
from zchunked.interfaces import Document
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.digest import Digest, digest_of, short, verify
from zchunked.oci.documents import INDEXES, Descriptor, Manifest, candidates, parse_document
from zchunked.oci.platform import Platform
from zchunked.store import Store
from zchunked.store.images import ImageDocuments

Fetch = Callable[[Digest | None], Document]
"""One manifest request, retried. A digest requested again arrived damaged the first time."""

Note = Callable[[str], None]
"""Takes what a person may want to know, on whatever thread."""


def resolve(
    digest: Digest | None,
    want: Platform,
    store: Store,
    fetch: Fetch,
    limits: Limits = DEFAULT_LIMITS,
    note: Note = lambda _: None,
) -> ImageDocuments:
    """The image manifest behind a digest, or behind `fetch(None)`. Stored ones are not requested.

    Artifacts beside the image are passed over, indexes within indexes are searched. Raises
    NoMatchError when no image is for the platform, ArtifactError when there is no image at all.
    """
    search = _Search(want, store, fetch, limits, note)
    data, media_type = search.document(digest, None)
    root = digest_of(data)
    return search.image(root, root, data, media_type)


class _Search:
    """One search for an image; depth first, and bounded."""

    def __init__(
        self, want: Platform, store: Store, fetch: Fetch, limits: Limits, note: Note
    ) -> None:
        self._want, self._store, self._fetch = want, store, fetch
        self._limits, self._note = limits, note
        self._left = limits.looked_at_count

    def image(
        self, root: Digest, here: Digest, data: bytes, media_type: str, depth: int = 0
    ) -> ImageDocuments:
        document = parse_document(data, media_type, limits=self._limits)
        if isinstance(document, Manifest):
            _check_layers(document, self._limits)
            _check_known(document, self._store)
            return ImageDocuments(root, here, data, document)
        if depth == self._limits.index_depth:
            raise LimitError(f"indexes within indexes, more than {self._limits.index_depth} deep")
        missed: ZPullError | None = None
        silent: list[ImageDocuments] = []
        for chosen in candidates(document, self._want):
            try:
                found = self._behind(root, chosen.descriptor, depth)
            except (ArtifactError, NoMatchError) as error:
                missed = error if missed is None or isinstance(missed, ArtifactError) else missed
                continue
            if chosen.platform is not None or chosen.descriptor.media_type in INDEXES:
                return found
            silent.append(found)
        if len(silent) == 1:
            return silent[0]
        if silent:
            raise NoMatchError(
                f"the index has no image for {self._want}; {len(silent)} do not say for what "
                "they are"
            )
        raise missed or NoMatchError(f"the index has no image for {self._want}")

    def _behind(self, root: Digest, listed: Descriptor, depth: int) -> ImageDocuments:
        self._left -= 1
        if self._left < 0:
            raise LimitError(
                f"no image among the first {self._limits.looked_at_count} manifests of the index"
            )
        if listed.size > self._limits.manifest_bytes:
            raise LimitError(
                f"the manifest {listed.digest} has {listed.size} bytes, the limit is "
                f"{self._limits.manifest_bytes}"
            )
        data, media_type = self.document(listed.digest, listed)
        return self.image(root, listed.digest, data, media_type, depth + 1)

    def document(self, digest: Digest | None, listed: Descriptor | None) -> tuple[bytes, str]:
        """A document and its media type; stored if it is valid and what was promised."""
        said = listed.media_type if listed else ""
        if digest is not None and (found := self._store.document(digest)) is not None:
            return found, said
        answer = self._fetch(digest)
        try:
            _check_document(answer, digest, said)
        except ArtifactError:
            raise
        except (IntegrityError, FormatError):
            answer = self._fetch(digest)
            _check_document(answer, digest, said)
        # As old docker wrote lists: the digest decides
        if listed is not None and len(answer.data) != listed.size:
            self._note(
                f"the index lists manifest {short(listed.digest)} with {listed.size} bytes, it "
                f"has {len(answer.data)}; its digest is right"
            )
        self._store.put(answer.data)
        return answer.data, answer.media_type or said


def _check_document(answer: Document, digest: Digest | None, said: str) -> None:
    if digest is not None:
        verify(answer.data, digest, "the manifest")
    parse_document(answer.data, answer.media_type or said)


def _check_layers(manifest: Manifest, limits: Limits) -> None:
    sizes: dict[Digest, int] = {}
    for blob in (manifest.config, *manifest.layers):
        what, most = (
            ("layer", limits.layer_bytes)
            if blob is not manifest.config
            else ("config", limits.manifest_bytes)
        )
        if blob.size > most:
            raise LimitError(
                f"{what} {blob.digest} is listed with {blob.size} bytes, the limit is {most}"
            )
        if sizes.setdefault(blob.digest, blob.size) != blob.size:
            raise FormatError(f"the manifest gives blob {blob.digest} two sizes")
        if blob.media_type.endswith("+encrypted"):
            raise FormatError(f"layer {blob.digest} is encrypted; decrypt the image first")


def _check_known(manifest: Manifest, store: Store) -> None:
    """Refuse a manifest with another size for a stored blob than its digest proved."""
    for blob in (manifest.config, *manifest.layers):
        known = store.whole_size(blob.digest)
        if known not in (None, blob.size):
            raise FormatError(
                f"the manifest lists blob {blob.digest} with {blob.size} bytes, it has {known}; "
                "build and push the image again"
            )
