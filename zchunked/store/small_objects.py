"""Small objects of a store, whole and proved: manifests, indexes and configs."""

from __future__ import annotations

from zchunked.errors import IntegrityError
from zchunked.limits import DEFAULT_LIMITS
from zchunked.oci.digest import Digest, digest_of
from zchunked.ranges import ByteRange
from zchunked.store.blobs import Blobs


class SmallObjects(Blobs):
    """The part of a store that keeps them. Thread-safe."""

    def put(self, data: bytes) -> Digest:
        """Store a small object (manifest, config) whole; returns its digest.

        Replaces what had this name, also where the disk has spoilt it since.
        """
        digest = digest_of(data)
        if self.get(digest, len(data)) is None or not self.is_whole(digest):
            self.drop_lost(digest)
            for start, end in self.covered(digest):
                if self.read(digest, start, end) != data[start:end]:
                    self.evict(digest, [ByteRange(start, end)])
            if data:
                writer = self.writer(digest, len(data))
                writer.write(0, data)
                writer.close()
            self.set_whole(digest, len(data))
        return digest

    def get(self, blob: Digest, size: int) -> bytes | None:
        """A small object if stored undamaged; a wrong `size` drops nothing that was proved."""
        known, span = self.whole_size(blob), ByteRange(0, size)
        if size > DEFAULT_LIMITS.manifest_bytes or known not in (None, size):
            return None
        if not self.covers(blob, span) or (not size and known is None):
            return None
        try:
            data = self.read(blob, 0, size)
        except IntegrityError:
            data = b""
            self.drop_lost(blob)
        if digest_of(data) == blob:
            return data
        (self.report_corruption if known is None else self.evict)(blob, [span])
        return None

    def document(self, digest: Digest) -> bytes | None:
        """A manifest or index by digest alone."""
        covered = self.covered(digest)
        return (
            self.get(digest, covered[0].end)
            if len(covered) == 1 and covered[0].start == 0
            else None
        )
