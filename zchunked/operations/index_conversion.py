"""Convert every image that an index lists, and make the new index of them."""

from __future__ import annotations

from zchunked.convert.index import Converted, Entry, NewIndex, choices
from zchunked.errors import ArtifactError, NoMatchError
from zchunked.export.shipment import Shipment
from zchunked.oci.digest import Digest, digest_of
from zchunked.operations.context import Context
from zchunked.operations.conversion import Conversion
from zchunked.operations.uploads.referrers import listed_documents
from zchunked.pull.objects.fetcher import ObjectFetcher
from zchunked.pull.origin import Origin


class IndexConversion:
    """All images of one source. For one thread, which also gets all events."""

    def __init__(self, context: Context, origin: Origin, source: Conversion) -> None:
        """`source` converts images of this origin."""
        self._context, self._origin, self._source = context, origin, source
        self._root = b"{}"
        self._others: list[Entry] = []

    def convert(self, images: list[Converted]) -> None:
        """Append each image once it is done. A manifest is an index of one.

        Raises NoMatchError where there is none.
        """
        with self._objects() as objects:
            self._root = objects.manifest(None)
        store, root = self._context.store, digest_of(self._root)
        wanted, self._others = choices(self._root)
        for choice in wanted:
            try:
                one = self._source.image(choice.platform or self._context.options.platform, choice)
            except ArtifactError:
                if choice.digest is None:
                    raise
                self._others.append(choice.entry)
                continue
            images.append(one)
            # what the name stands for, not one of the images behind it
            store.set_image(one.before.name, one.platform, one.old_digest, root)
        if not images:
            raise NoMatchError(f"{self._origin.name}: the index lists no container image")

    def shipment(self, images: list[Converted], *, keep: bool) -> Shipment:
        """The new index and all that it lists; what was not converted is fetched as it is."""
        index = NewIndex(self._root, images, keep=keep)
        for line in index.add_others(self._others):
            self._source.note(line)
        store = self._context.store
        with self._objects() as objects:

            def fetched(entry: Entry) -> Shipment:
                kind = entry.get("mediaType") or ""
                return listed_documents(objects, store, Digest(entry["digest"]), kind)

            return index.shipment(store, fetched)

    def _objects(self) -> ObjectFetcher:
        """To be used in a `with` block."""
        context = self._context
        return ObjectFetcher(self._origin, context.store, context.options, context.show)
