"""Find the image that a blob belongs to, by manifests that clients requested."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress

from zchunked.errors import LocalError, ZPullError
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_document
from zchunked.store import Store

_REMEMBERED = 20_000  # blobs of which the image is known: some hundred images


class KnownImages:
    """Images that clients requested last, by repository; at first, as the store remembers them.

    Thread-safe.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._images: OrderedDict[tuple[str, Digest], tuple[Digest, Descriptor]] = OrderedDict()
        self._tags: dict[tuple[str, Digest], str] = {}
        self._recalled: set[str] = set()  # repositories

    def learn(self, name: str, what: str, digest: Digest, data: bytes) -> Manifest | None:
        """Remember a manifest's or index's content. `what`: the tag or digest that it was asked by.

        Returns the manifest of one image; None for an index, and for what cannot be understood.
        """
        try:
            document = parse_document(data)
        except ZPullError:
            return None  # unknown here: the client may know what it is
        if not isinstance(document, Manifest):
            self._name(name, what, [one.descriptor.digest for one in document.instances])
            return None
        self._name(name, what, [digest])
        if self._record(name, digest, document):
            with suppress(LocalError):  # it is a hint, for the next process
                self._store.hints.remember_served(name, digest, self.tag_of(name, digest) or "")
        return document

    def _name(self, name: str, what: str, images: list[Digest]) -> None:
        if ":" in what:
            return
        with self._lock:
            self._tags.update({(name, image): what for image in images})
            while len(self._tags) > _REMEMBERED:
                del self._tags[next(iter(self._tags))]

    def _record(self, name: str, digest: Digest, manifest: Manifest) -> bool:
        """Returns whether that was news."""
        is_news = False
        with self._lock:
            for blob in (manifest.config, *manifest.layers):
                is_news |= self._images.get((name, blob.digest)) != (digest, blob)
                self._images[name, blob.digest] = digest, blob
                self._images.move_to_end((name, blob.digest))
            while len(self._images) > _REMEMBERED:
                self._images.popitem(last=False)
        return is_news

    def image_of(self, name: str, blob: Digest) -> tuple[Digest, Descriptor] | None:
        """The manifest's digest, and what it says of the blob."""
        with self._lock:
            found = self._images.get((name, blob))
            if found is not None or name in self._recalled:
                return found
            self._recalled.add(name)
        for image, tag in reversed(self._store.hints.recall_served(name)):
            data = self._store.document(image)
            with suppress(ZPullError):
                if data is not None and isinstance(manifest := parse_document(data), Manifest):
                    self._name(name, tag or ":", [image])
                    self._record(name, image, manifest)
        with self._lock:
            return self._images.get((name, blob))

    def blobs_of(self, name: str, image: Digest) -> list[Descriptor]:
        """The image's config and layers, as far as they are remembered."""
        with self._lock:
            return [
                blob
                for (owner, _), (known, blob) in self._images.items()
                if owner == name and known == image
            ]

    def layers_of(self, image: Digest) -> set[Digest]:
        """The image's layers, by its manifest in the store; empty where that is missing."""
        data = self._store.document(image)
        with suppress(ZPullError):
            if data is not None and isinstance(manifest := parse_document(data), Manifest):
                return {layer.digest for layer in manifest.layers}
        return set()

    def tag_of(self, name: str, image: Digest) -> str | None:
        """The tag by which a client requested the image last."""
        with self._lock:
            return self._tags.get((name, image))
