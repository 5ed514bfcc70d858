"""Choose which tables of stored blobs a pull reads, where their frames are not in the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zchunked.layers.index_frames import Unindexed
from zchunked.oci.digest import Digest
from zchunked.oci.documents import Manifest, parse_document
from zchunked.store import Store

# Tables that are joined with those of a pull; what is more goes into the index first. Of 200,000
# frames the TOC has 5 MB, and their columns 20
_MOST_TABLES, _MOST_BYTES = 6, 8 << 20
_RECORDED = 3  # a table's frames in the index take so many times what its columns take


@dataclass(slots=True)
class Tables:
    """Tables of stored blobs: those that are read first, and all others in order of arrival."""

    first: list[Unindexed] = field(default_factory=list)
    others: list[Unindexed] = field(default_factory=list)

    def take(self, most_bytes: float) -> tuple[list[Unindexed], list[Unindexed]]:
        """The newest of the others, as many as take no longer than so many bytes of tables.

        Returns those whose columns are joined, and those whose frames go into the index.
        """
        joined: list[Unindexed] = []
        recorded: list[Unindexed] = []
        while self.others:
            one = self.others[-1]
            has_room = _has_room([*self.first, *joined], one)
            most_bytes -= one.toc_bytes * (1 if has_room else _RECORDED)
            if most_bytes < 0:
                break
            (joined if has_room else recorded).append(self.others.pop())
        return joined, recorded

    def take_all(self) -> list[Unindexed]:
        """All the others."""
        taken, self.others = self.others, []
        return taken

    def take_one(self, most_bytes: float) -> Unindexed | None:
        """The newest of the others, if its table has no more bytes than that."""
        is_there = self.others and self.others[-1].toc_bytes <= most_bytes
        return self.others.pop() if is_there else None


def tables_of(store: Store, repository: str, waiting: Sequence[Unindexed]) -> Tables:
    """Those of the repository's last image come first, as far as there is room for their columns.

    Where it has none, the newest blob's does.
    """
    ours = _last_blobs(store, repository)
    found = Tables(others=[one for one in waiting if one.blob not in ours])
    for one in reversed(waiting):
        if one.blob in ours:
            (found.first if _has_room(found.first, one) else found.others).append(one)
    if not ours and found.others:
        found.first.append(found.others.pop())
    return found


def _last_blobs(store: Store, repository: str) -> set[Digest]:
    """The layers of the image that was pulled last from the repository."""
    for image in store.images():  # newest first
        if image.name.startswith((repository + ":", repository + "@")):
            data = store.document(image.manifest)
            document = parse_document(data) if data is not None else None
            if isinstance(document, Manifest):
                return {layer.digest for layer in document.layers}
    return set()


def _has_room(taken: Sequence[Unindexed], one: Unindexed) -> bool:
    size = sum(other.toc_bytes for other in taken)
    return not taken or (len(taken) < _MOST_TABLES and size + one.toc_bytes <= _MOST_BYTES)
