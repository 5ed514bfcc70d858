"""Which image a blob belongs to, learnt from the manifests that clients asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict

from zchunked.errors import ZPullError
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Descriptor, Manifest, parse_document

_REMEMBERED = 20_000  # blobs of which the image is known: some hundred images


class KnownImages:
    """What was learnt last, by repository. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images: OrderedDict[tuple[str, Digest], tuple[Digest, Descriptor]] = OrderedDict()
        self._tags: dict[tuple[str, Digest], str] = {}

    def learn(self, name: str, what: str, digest: Digest, data: bytes) -> Manifest | None:
        """Remember a manifest's or index's content. `what`: the tag or digest that it was asked by.

        Returns the manifest of one image; None for an index, and for what cannot be understood.
        """
        try:
            document = parse_document(data)
        except ZPullError:
            return None  # not ours to judge: the client may know what it is
        manifest = document if isinstance(document, Manifest) else None
        with self._lock:
            if ":" not in what:
                named = (
                    [digest]
                    if isinstance(document, Manifest)
                    else [one.descriptor.digest for one in document.instances]
                )
                self._tags.update({(name, one): what for one in named})
                while len(self._tags) > _REMEMBERED:
                    del self._tags[next(iter(self._tags))]
            for blob in (manifest.config, *manifest.layers) if manifest else ():
                self._images[name, blob.digest] = digest, blob
                self._images.move_to_end((name, blob.digest))
            while len(self._images) > _REMEMBERED:
                self._images.popitem(last=False)
        return manifest

    def image_of(self, name: str, blob: Digest) -> tuple[Digest, Descriptor] | None:
        """The manifest's digest, and what it says of the blob."""
        with self._lock:
            return self._images.get((name, blob))

    def blobs_of(self, name: str, image: Digest) -> list[Descriptor]:
        """The image's config and layers, as far as they are remembered."""
        with self._lock:
            return [blob for (owner, _), (known, blob) in self._images.items() if owner == name and known == image]

    def tag_of(self, name: str, image: Digest) -> str | None:
        """The tag by which a client came to the image last."""
        with self._lock:
            return self._tags.get((name, image))
