"""Find one object of a repository before it is fetched: document or blob, and its size."""

from __future__ import annotations

from collections.abc import Sequence

from zchunked.errors import FormatError, IntegrityError, LimitError, NotFoundError
from zchunked.interfaces import Document, Locating
from zchunked.oci.digest import Digest, digest_of
from zchunked.oci.documents import ACCEPTED, Descriptor, Index, parse_document
from zchunked.oci.platform import Platform
from zchunked.pull.metadata.resolve import resolve
from zchunked.pull.transfer import Transfer
from zchunked.ranges import total
from zchunked.store.images import ImageDocuments

_MOST_DOCUMENTS = 100  # that are read to learn how long a blob is
_ANY = "application/octet-stream"


class ObjectSearch:
    """Searches one repository. Its methods run on a worker of the fetch queue."""

    def __init__(self, transfer: Transfer) -> None:
        origin = transfer.origin
        self._transfer, self._store, self._source = transfer, transfer.store, transfer.source
        self._name, self._root, self._locating = origin.reference.name, origin.root, origin.source
        self._limits = transfer.options.limits

    def image(self, platform: Platform) -> ImageDocuments:
        """What the reference names, down to the manifest for the platform."""
        return resolve(self._root, platform, self._store, self._source.manifest, self._limits)

    def document(self, digest: Digest | None) -> Document:
        """A document of any kind, from the store if it has it; None: what the reference names.

        It is not parsed: what it is does not matter, as long as it is what was promised.
        """
        if digest is not None and (stored := self._store.document(digest)) is not None:
            return Document(stored, "")
        answer = self._source.manifest(digest)
        if digest not in (None, digest_of(answer.data)):
            answer = self._source.manifest(digest)
            if (got := digest_of(answer.data)) != digest:
                raise IntegrityError(f"{self._name}: expected manifest {digest}, got {got} twice")
        self._store.put(answer.data)
        return answer

    def find(self, digest: Digest, media_type: str | None) -> Descriptor:
        """Type and size of an object; a document is in the store afterwards.

        `media_type` hints at which it is. Raises NotFoundError, LimitError.
        """
        if self._store.is_whole(digest):
            return Descriptor(_ANY, digest, total(self._store.covered(digest)))
        if media_type in ACCEPTED:
            return self._as_document(digest)
        found = self._search(digest, self._stored_roots(), is_asking=False)
        source = self._locating
        if found is None and isinstance(source, Locating):
            try:
                size = self._transfer.chameleon.run(lambda: source.size_of(digest))
            except NotFoundError:
                return self._as_document(digest)
            found = None if size is None else Descriptor(_ANY, digest, size)
        if found is None:
            root = self.document(self._root)
            found = self._search(digest, [digest_of(root.data)], is_asking=True)
        if found is None:
            raise NotFoundError(
                f"{self._name}: nothing lists a blob {digest}, so its size is not known"
            )
        if found.media_type in ACCEPTED:
            return self._as_document(digest)
        if found.size > (most := self._limits.layer_bytes):
            raise LimitError(f"blob {digest} has {found.size} bytes, the limit is {most}")
        return found

    def _as_document(self, digest: Digest) -> Descriptor:
        try:
            document = self.document(digest)
        except NotFoundError as error:
            raise NotFoundError(
                f"{self._name} has neither a blob nor a manifest {digest}"
            ) from error
        return Descriptor(document.media_type or _ANY, digest, len(document.data))

    def _stored_roots(self) -> list[Digest]:
        """What images of this repository in the store began with."""
        name = self._name
        names = (name + ":", name + "@")
        roots = [
            image.root
            for image in self._store.images()
            if image.name == name or image.name.startswith(names)
        ]
        return roots + ([self._root] if self._root else [])

    def _search(
        self, digest: Digest, roots: Sequence[Digest], *, is_asking: bool
    ) -> Descriptor | None:
        """The descriptor that lists the digest, in these documents or in those that they list."""
        todo, seen = list(roots), set(roots)
        for _ in range(_MOST_DOCUMENTS):
            if not todo:
                break
            one = todo.pop(0)
            data = self.document(one).data if is_asking else self._store.document(one)
            try:
                document = parse_document(data or b"", limits=self._limits)
            except FormatError:
                continue
            if isinstance(document, Index):
                listed = [instance.descriptor for instance in document.instances]
                todo += [below.digest for below in listed if below.digest not in seen]
                seen.update(todo)
            else:
                listed = [document.config, *document.layers]
            for descriptor in listed:
                if descriptor.digest == digest:
                    return descriptor
        return None
